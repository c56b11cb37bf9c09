package timerslack

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// slacks of this process's threads.
func slacks(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range dirs {
		// A thread may end meanwhile.
		if b, err := os.ReadFile("/proc/" + filepath.Base(d) + "/timerslack_ns"); err == nil {
			all = append(all, strings.TrimSpace(string(b)))
		}
	}
	return all
}

func TestRelax(t *testing.T) {
	testenv.NeedsRoot(t)
	Relax()
	if all := slacks(t); !slices.Contains(all, strconv.Itoa(relaxed)) || !slices.Contains(all, strconv.Itoa(normal)) {
		t.Error(all)
	}
	// What is started by threads that the monitor started has the usual slack.
	done := make(chan string)
	const many = 32
	for range many {
		go func() {
			time.Sleep(time.Millisecond)
			runtime.LockOSThread() // and never unlocked: each needs a thread
			var out []byte
			err := Start(func() (err error) {
				out, err = exec.Command("/bin/cat", "/proc/self/timerslack_ns").Output()
				return err
			})
			if err != nil {
				t.Error(err)
			}
			done <- strings.TrimSpace(string(out))
		}()
	}
	for range many {
		if got := <-done; got != strconv.Itoa(normal) {
			t.Errorf("a program was started with a slack of %s ns", got)
		}
	}
}
