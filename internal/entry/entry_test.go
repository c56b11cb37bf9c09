package entry

import (
	"os"
	"runtime"
	"testing"
)

// TestAllProcessors: a helper has those that the entry took.
func TestAllProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	t.Setenv(processors, "1")
	if AllProcessors(); runtime.GOMAXPROCS(0) != 1 {
		t.Error("the user's choice is not heeded")
	}
	t.Setenv(processors, taken)
	if AllProcessors(); runtime.GOMAXPROCS(0) != runtime.NumCPU() {
		t.Errorf("%d of %d processors", runtime.GOMAXPROCS(0), runtime.NumCPU())
	}
	if v, ok := os.LookupEnv(processors); ok {
		t.Errorf("GOMAXPROCS=%s is left to those that a helper starts", v)
	}
}
