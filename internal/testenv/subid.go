package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// SubordinateIDs gives ranges of 65536 users and groups to a number that is
// nobody's, until the test ends. It returns the number, a value of userns-remap, and
// the first id of both ranges.
func SubordinateIDs(t testing.TB) (remap string, first int) {
	t.Helper()
	NeedsRoot(t)
	remap = strconv.Itoa(2_100_000_000 + rand.N(1_000_000))
	first = 1<<30 + rand.N(1<<13)<<16
	line := fmt.Sprintf("%s:%d:65536\n", remap, first)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		_, err := os.Stat(file)
		isNew := errors.Is(err, os.ErrNotExist)
		edit(t, file, func(text string) string { return text + line })
		t.Cleanup(func() {
			edit(t, file, func(text string) string { return strings.Replace(text, line, "", 1) })
			if fi, err := os.Stat(file); isNew && err == nil && fi.Size() == 0 {
				_ = os.Remove(file)
			}
		})
	}
	return remap, first
}

// edit changes a file of the machine, which tests of other packages may change, too.
func edit(t testing.TB, name string, change func(string) string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err == nil {
		after := change(string(text))
		if _, err = f.WriteAt([]byte(after), 0); err == nil {
			err = f.Truncate(int64(len(after)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
