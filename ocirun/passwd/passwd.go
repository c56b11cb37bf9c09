// Package passwd resolves users and groups as people write them ("root",
// "1000", "app:staff") against the passwd and group files of an image. The
// files are hostile: lines and files have size limits, and nothing in them can
// yield a number outside the range of user ids.
package passwd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits of what is read.
const (
	maxFile  = 16 << 20
	maxLine  = 256 << 10
	maxID    = 1<<31 - 1
	maxSupps = 65536 // NGROUPS_MAX
)

// User is the outcome.
type User struct {
	UID, GID uint32
	GIDs     []uint32 // with GID
	Home     string   // "/" if the passwd file does not tell
}

// Error is a request that the files do not satisfy; its text is the one
// that users of other runtimes know.
type Error struct{ msg string }

func (e *Error) Error() string { return e.msg }

func failf(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Open reads a file of the image; it returns nil if there is none.
type Open func(name string) (io.ReadCloser, error)

// Resolve finds the user written as "", "user", "user:group" (names or
// numbers), and the additional groups.
func Resolve(open Open, written string, additional []string) (User, error) {
	userName, groupName, _ := strings.Cut(written, ":")
	u := User{Home: "/"}
	login, err := u.findUser(open, userName)
	if err != nil {
		return User{}, err
	}
	if err := u.findGroups(open, groupName, login, additional); err != nil {
		return User{}, err
	}
	// The primary group is among the others too: else a set-group-ID program
	// would shake it off, and with it what the group is denied.
	if !slices.Contains(u.GIDs, u.GID) {
		u.GIDs = slices.Insert(u.GIDs, 0, u.GID)
		u.GIDs = u.GIDs[:min(len(u.GIDs), maxSupps)]
	}
	return u, nil
}

// Home returns the home directory of uid, "/" if there is none.
func Home(open Open, uid uint32) (string, error) {
	u := User{Home: "/"}
	_, err := u.findUser(open, strconv.FormatUint(uint64(uid), 10))
	return u.Home, err
}

// findUser sets the ids and home; it returns the login name if one matched.
func (u *User) findUser(open Open, name string) (login string, err error) {
	if name == "" {
		name = "0"
	}
	number, numeric, err := parseID(name)
	if err != nil {
		return "", err
	}
	found := false
	err = scan(open, "/etc/passwd", func(f []string) bool {
		if len(f) < 4 || f[0] == "" {
			return true
		}
		uid, ok, err := parseID(f[2])
		if !ok || err != nil {
			return true
		}
		// A number is never a name: an image must not decide what 1000 means.
		if numeric && uid != number || !numeric && f[0] != name {
			return true
		}
		gid, ok, err := parseID(f[3])
		if !ok || err != nil {
			return true
		}
		found, login = true, f[0]
		u.UID, u.GID = uid, gid
		if len(f) > 5 && f[5] != "" {
			u.Home = f[5]
		}
		return false
	})
	switch {
	case err != nil:
		return "", err
	case found:
		return login, nil
	case !numeric:
		return "", failf("unable to find user %s: no matching entries in passwd file", name)
	}
	u.UID = number
	return "", nil
}

// findGroups sets the primary group, if one was named, and the others.
func (u *User) findGroups(open Open, group, login string, additional []string) error {
	wanted := make(map[string]bool, len(additional)+1)
	seen := map[uint32]bool{}
	add := func(gid uint32) {
		if !seen[gid] {
			seen[gid] = true
			u.GIDs = append(u.GIDs, gid)
		}
	}
	for _, name := range additional {
		n, numeric, err := parseID(name)
		if err != nil {
			return err
		}
		if numeric {
			add(n)
		} else {
			wanted[name] = true
		}
	}
	number, numeric, err := parseID(group)
	if err != nil {
		return err
	}
	needPrimary := group != ""
	if numeric {
		u.GID, needPrimary = number, false
	}
	if !needPrimary && len(wanted) == 0 && (login == "" || group != "") {
		return nil
	}
	err = scan(open, "/etc/group", func(f []string) bool {
		if len(f) < 3 || f[0] == "" {
			return true
		}
		gid, ok, err := parseID(f[2])
		if !ok || err != nil {
			return true
		}
		if needPrimary && f[0] == group {
			u.GID, needPrimary = gid, false
		}
		if wanted[f[0]] {
			delete(wanted, f[0])
			add(gid)
		}
		if group == "" && login != "" && len(f) > 3 && isMember(f[3], login) {
			add(gid)
		}
		return len(u.GIDs) < maxSupps
	})
	if err != nil {
		return err
	}
	if needPrimary {
		return failf("unable to find group %s: no matching entries in group file", group)
	}
	for _, name := range additional {
		if wanted[name] {
			return failf("unable to find group %s: no matching entries in group file", name)
		}
	}
	return nil
}

func isMember(list, login string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if m == login {
			return true
		}
	}
	return false
}

// parseID tells whether s is a number, and refuses numbers that are no ids.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] != '-' || i > 0 || len(s) == 1) {
			return 0, false, nil
		}
	}
	n, perr := strconv.ParseInt(s, 10, 64)
	if perr != nil || n < 0 || n > maxID {
		return 0, true, failf("uids and gids must be in range 0-%d", maxID)
	}
	return uint32(n), true, nil
}

// scan calls f with the fields of each line until it returns false.
func scan(open Open, name string, f func(fields []string) bool) error {
	file, err := open(name)
	if err != nil || file == nil {
		return err
	}
	defer file.Close()
	limited := &io.LimitedReader{R: file, N: maxFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if !f(strings.Split(string(line), ":")) {
			return nil
		}
	}
	if limited.N == 0 {
		return failf("%s is larger than %d bytes", name, maxFile)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
