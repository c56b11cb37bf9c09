package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// common is the daemon that most tests share; tests that change or kill a
// daemon start one of their own.
var common = sync.OnceValues(func() (*testenv.Daemon, error) {
	d, err := testenv.New(testenv.Options{})
	if err != nil {
		return nil, err
	}
	return d, d.Launch()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if commonUsed.Load() {
		if d, err := common(); d != nil {
			if err := d.Close(); err != nil {
				fmt.Fprintf(os.Stderr, "FAIL: the shared daemon: %v\n", err)
				code = 1
			}
		} else {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
		testenv.CloseRegistries()
	}
	os.Exit(code)
}

var commonUsed atomic.Bool

// shared returns the common daemon.
func shared(t *testing.T) *testenv.Daemon {
	t.Helper()
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	commonUsed.Store(true)
	d, err := common()
	if err != nil {
		t.Fatalf("the shared daemon: %v\n%s", err, d.LogTail())
	}
	return d
}

var counter atomic.Int64

// name makes a container, network or volume name that no other test uses.
func name(t *testing.T) string {
	t.Helper()
	base := strings.NewReplacer("/", "-", " ", "-", "_", "-").Replace(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	if len(base) > 40 {
		base = base[:40]
	}
	return fmt.Sprintf("%s-%d", base, counter.Add(1))
}

// detached starts a container in the background and removes it at the end.
func detached(t *testing.T, cli testenv.CLI, args ...string) string {
	t.Helper()
	id := cli.OK(t, append([]string{"run", "-d"}, args...)...)
	t.Cleanup(func() { cli.Try(t, "rm", "-fv", id) })
	return id
}

// equal compares what a command printed.
func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// contains checks for a part of what was printed.
func contains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q is not in %q", what, want, got)
	}
}
