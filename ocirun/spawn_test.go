package ocirun

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProgramOutOfTheWay makes containers while the program has every number
// that a child of ours may use for something else.
func TestProgramOutOfTheWay(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	mustRun(t, r, sh(root, "true"))
	program, err := r.program()
	if err != nil {
		t.Fatal(err)
	}
	free, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	extra, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	for n := range 24 {
		fd, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, n)
		if err != nil {
			t.Fatal(err)
		}
		number, done, err := outOfTheWay(fd, []uintptr{0, 0, 0, extra.Fd(), uintptr(free)})
		if err != nil {
			t.Fatal(err)
		}
		highest := max(int(extra.Fd()), free)
		if number < 5 || number > highest && number < highest+5+1 {
			t.Errorf("%d becomes %d, with files up to %d", fd, number, highest)
		}
		done()
		unix.Close(fd)
	}
	for range 20 { // numbers grow by one from one container to the next
		held, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if res := mustRun(t, r, sh(root, "echo ran")); res.out != "ran\n" {
			t.Fatalf("%+v", res)
		}
	}
}
