package rootfs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxAccounts bounds what is read of a hostile passwd or group file.
const maxAccounts = 4 << 20 // bytes

// User resolves user[:group] against the accounts of a root. InvalidArgument
// if a name is not among them.
func User(root *os.File, spec string) (uid, gid int, err error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	uid, err = strconv.Atoi(name)
	numeric := err == nil
	found := false
	lines(root, "/etc/passwd", func(f []string) bool {
		if len(f) < 4 || f[0] != name && (!numeric || f[2] != name) {
			return true
		}
		u, uerr := strconv.Atoi(f[2])
		g, gerr := strconv.Atoi(f[3])
		if uerr == nil && gerr == nil {
			uid, gid, found = u, g, true
		}
		return !found
	})
	if !found && !numeric {
		return 0, 0, fmt.Errorf("no user %q in the container: %w", name, errdefs.ErrInvalidArgument)
	}
	if !hasGroup {
		return uid, gid, nil
	}
	if gid, err = strconv.Atoi(group); err == nil {
		return uid, gid, nil
	}
	found = false
	lines(root, "/etc/group", func(f []string) bool {
		if len(f) > 2 && f[0] == group {
			gid, err = strconv.Atoi(f[2])
			found = err == nil
		}
		return !found
	})
	if !found {
		return 0, 0, fmt.Errorf("no group %q in the container: %w", group, errdefs.ErrInvalidArgument)
	}
	return uid, gid, nil
}

// lines calls fn with the fields of each line until it returns false.
func lines(root *os.File, name string, fn func([]string) bool) {
	f, err := Open(root, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	sc := bufio.NewScanner(io.LimitReader(f, maxAccounts))
	for sc.Scan() {
		if !fn(strings.Split(sc.Text(), ":")) {
			return
		}
	}
}
