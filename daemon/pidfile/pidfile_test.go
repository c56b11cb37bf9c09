package pidfile

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "pid")
	for _, stale := range []string{"", "4194999", "not a number", "1"} { // pid 1 is no daemon of ours
		if stale != "" {
			if err := os.WriteFile(path, []byte(stale), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Write(path); err != nil {
			t.Errorf("over %q: %v", stale, err)
		}
		if got, _ := os.ReadFile(path); string(got) != strconv.Itoa(os.Getpid()) {
			t.Errorf("over %q: %q", stale, got)
		}
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !strings.HasPrefix(string(got), "1") {
		t.Error("another's pid file was removed")
	}
}
