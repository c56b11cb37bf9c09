// Package subid finds out to which users and groups of the host those of containers
// are mapped: it reads the option userns-remap and the files subuid(5) and
// subgid(5). It changes nothing.
package subid

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

// DefaultUser is who the value "default" stands for, as in other engines.
const DefaultUser = "dockremap"

// Files are where users and their ranges are looked up; the zero value is /etc.
type Files struct {
	Dir string
}

// Resolve reads a value of userns-remap: "default", user, user:group, uid or
// uid:gid. The error says what to write into which file.
func (f Files) Resolve(value string) (container.IDMap, error) {
	ids, err := f.resolve(value)
	if err != nil {
		return container.IDMap{}, fmt.Errorf("userns-remap %q: %w", value, err)
	}
	return ids, nil
}

func (f Files) resolve(value string) (ids container.IDMap, err error) {
	user, group, both := strings.Cut(value, ":")
	if user == "" || both && (group == "" || strings.Contains(group, ":")) {
		return ids, errors.New("it must be default, user, user:group, uid or uid:gid")
	}
	if value == "default" {
		user = DefaultUser
	}
	u, err := f.find("passwd", "user", user, value == "default")
	if err != nil {
		return ids, err
	}
	if !both { // the group of the user's name
		group = u.String()
	}
	g, err := f.find("group", "group", group, value == "default" || !both)
	if err != nil {
		return ids, err
	}
	if u.id == "0" {
		return ids, errors.New("root cannot be remapped to itself")
	}
	if ids.UIDs, err = f.ranges("subuid", u); err != nil {
		return ids, err
	}
	ids.GIDs, err = f.ranges("subgid", g)
	return ids, err
}

// account is a user or a group, by its name and number; one of them may be unknown.
type account struct{ name, id string }

func (a account) String() string { return cmp.Or(a.name, a.id) }

// find looks an account up. One that may be missing needs ranges only.
func (f Files) find(file, what, key string, maybe bool) (account, error) {
	_, err := strconv.ParseUint(key, 10, 32)
	numeric := err == nil
	var out account
	err = f.lines(file, func(fields []string) error {
		if out.id == "" && len(fields) > 2 && (fields[0] == key || numeric && fields[2] == key) {
			out = account{fields[0], fields[2]}
		}
		return nil
	})
	switch {
	case err != nil || out.id != "":
		return out, err
	case numeric:
		return account{id: key}, nil
	case maybe:
		return account{name: key}, nil
	}
	return out, fmt.Errorf("there is no %s %q in %s", what, key, f.path(file))
}

// ranges are those of an account, one after the other from id 0 of the container on.
func (f Files) ranges(file string, a account) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	next := uint64(0)
	number := 0
	err := f.lines(file, func(fields []string) error {
		number++
		if fields[0] != a.name && fields[0] != a.id {
			return nil
		}
		bad := fmt.Errorf("%s, entry %d: %q is not name:first:count", f.path(file), number, strings.Join(fields, ":"))
		if len(fields) != 3 {
			return bad
		}
		first, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 || first+count > math.MaxUint32 || next+count > math.MaxUint32 {
			return bad
		}
		if first == 0 {
			return fmt.Errorf("%s, entry %d: a range with root of the host cannot be used", f.path(file), number)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(next), HostID: uint32(first), Size: uint32(count)})
		next += count
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, f.checkRanges(file, a, out)
}

const (
	// leastIDs is what an ordinary image needs: root, system users and nobody.
	leastIDs = 65536
	// mostRanges is what the kernel takes (user_namespaces(7)).
	mostRanges = 340
)

func (f Files) checkRanges(file string, a account, list []specs.LinuxIDMapping) error {
	if len(list) == 0 {
		return fmt.Errorf("%s has no range for %s: add a line such as %s:100000:65536, with numbers that nobody else has", f.path(file), a, a)
	}
	if len(list) > mostRanges {
		return fmt.Errorf("%s has %d ranges for %s: the kernel takes %d", f.path(file), len(list), a, mostRanges)
	}
	sum := uint64(0)
	sorted := slices.SortedFunc(slices.Values(list), func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.HostID, b.HostID) })
	for i, r := range sorted {
		sum += uint64(r.Size)
		if i > 0 && sorted[i-1].HostID+sorted[i-1].Size > r.HostID {
			return fmt.Errorf("%s: the ranges of %s from %d and from %d on overlap", f.path(file), a, sorted[i-1].HostID, r.HostID)
		}
	}
	if sum < leastIDs {
		return fmt.Errorf("%s: the ranges of %s have %d ids, and containers need %d", f.path(file), a, sum, leastIDs)
	}
	return nil
}

func (f Files) path(file string) string { return filepath.Join(cmp.Or(f.Dir, "/etc"), file) }

// lines calls fn with the fields of each line. A file that is missing is empty.
func (f Files) lines(file string, fn func(fields []string) error) error {
	r, err := os.Open(f.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	s := bufio.NewScanner(r)
	for s.Scan() {
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := fn(strings.Split(text, ":")); err != nil {
			return err
		}
	}
	return s.Err()
}
