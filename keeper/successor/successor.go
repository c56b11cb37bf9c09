// Package successor is how a helper becomes a newer build of itself without
// ending: it asks the other program whether that understands what the helper
// leaves behind, and executes it in its own place. The process stays the same,
// with its children, its pid and the descriptors that it lets through.
package successor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long another program may take to say what it understands.
const patience = 10 * time.Second

// TakesFlag is the flag by which a helper is asked whether it takes over the
// state that one of the version named leaves behind.
const TakesFlag = "takes"

// Outcome says what became of one helper when it was to become another build.
type Outcome struct {
	Helper string `json:"helper"`
	// Replaced is set once the process runs the other program; it is not if it
	// ran that already.
	Replaced bool `json:"replaced,omitempty"`
	// Refused is why it goes on as it was, or "".
	Refused string `json:"refused,omitempty"`
}

// Takes answers TakesFlag: nil if a helper whose state has a version from
// oldest to newest can go on with one of version theirs.
func Takes(helper string, theirs, oldest, newest int) error {
	if theirs < oldest || theirs > newest {
		return fmt.Errorf("this %s goes on with state of version %d to %d, not with version %d", helper, oldest, newest, theirs)
	}
	return nil
}

// Runs tells whether a process (0: this one) executes the program at path.
func Runs(pid int, path string) (bool, error) {
	who := "self"
	if pid > 0 {
		who = strconv.Itoa(pid)
	}
	mine, err := os.Open("/proc/" + who + "/exe")
	if err != nil {
		return false, err
	}
	defer mine.Close()
	other, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer other.Close()
	a, err1 := mine.Stat()
	b, err2 := other.Stat()
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	if os.SameFile(a, b) {
		return true, nil
	}
	if a.Size() != b.Size() {
		return false, nil
	}
	return sameContent(mine, other)
}

func sameContent(a, b io.Reader) (bool, error) {
	const chunk = 256 << 10
	x, y := make([]byte, chunk), make([]byte, chunk)
	for {
		n, err1 := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err1 != nil || err2 != nil {
			if errors.Is(err1, io.EOF) || errors.Is(err1, io.ErrUnexpectedEOF) {
				return true, nil
			}
			return false, errors.Join(err1, err2)
		}
	}
}

// Ask runs the program to learn whether its helper of that name takes over
// state of a version.
func Ask(ctx context.Context, path, helper string, version int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, helper, "--"+TakesFlag, strconv.Itoa(version))
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if said == "" {
		said = err.Error()
	}
	return fmt.Errorf("%s: %s", path, said)
}

// Become executes the program as a helper; args follow its name. The
// descriptors keep are let through, and only they. It returns on error only;
// then everything is as it was.
func Become(path, helper string, args []string, keep []int) error {
	for _, fd := range keep {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			CloseOnExec(keep)
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	argv := append([]string{os.Args[0], helper}, args...)
	err := syscall.Exec(path, argv, os.Environ())
	CloseOnExec(keep)
	return fmt.Errorf("execute %s: %w", path, err)
}

// CloseOnExec undoes what Become did to descriptors.
func CloseOnExec(fds []int) {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}

// Memory returns a file without a name that holds b, positioned at its start.
func Memory(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
