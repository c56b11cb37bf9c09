package daemon

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestTrim maps less of the program afterwards, and goes on.
func TestTrim(t *testing.T) {
	file := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`RssFile:\s+(\d+)`).FindSubmatch(b)
		if m == nil {
			t.Skip("the kernel does not tell")
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	before := file()
	dropProgram()
	if after := file(); after >= before {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
}
