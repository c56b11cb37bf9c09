package state

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain turns the test binary into the writer that TestKilledWriter kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_WRITER"); dir != "" {
		write(dir)
		return
	}
	os.Exit(m.Run())
}

// write counts up in a few keys, two at a time, and says what was promised.
func write(dir string) {
	s, err := Open(Options{Dir: dir, FoldBytes: 16 << 10})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	start := 0
	if v, err := s.Get("a", "last"); err == nil {
		start, _ = strconv.Atoi(string(v))
	}
	pad := strings.Repeat(".", 500)
	for i := start + 1; ; i++ {
		n := strconv.Itoa(i)
		ops := []Op{
			{Bucket: "a", Key: "last", Value: []byte(n)},
			{Bucket: "b", Key: strconv.Itoa(i % 40), Value: []byte(n + pad)},
			{Bucket: "b", Key: "gone" + strconv.Itoa(i-1), Delete: true},
			{Bucket: "b", Key: "gone" + n, Value: []byte(n)},
		}
		if err := s.Batch(ops...); err != nil {
			fmt.Println("error:", err)
			return
		}
		fmt.Println(n)
	}
}

// A writer that is killed at any moment, folding included, has kept every
// promise, and no batch is half there.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	for round := range 25 {
		cmd := exec.Command(os.Args[0]) //nolint:gosec // ourselves
		cmd.Env = append(os.Environ(), "STATE_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(10+rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		promised := 0
		for sc := bufio.NewScanner(out); sc.Scan(); {
			n, err := strconv.Atoi(sc.Text())
			if err != nil {
				t.Fatalf("round %d: writer: %s", round, sc.Text())
			}
			promised = n
		}
		_ = cmd.Wait() // killed
		kill.Stop()
		check(t, dir, promised)
	}
}

func check(t *testing.T, dir string, promised int) {
	t.Helper()
	s, err := Open(Options{Dir: dir, FoldBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.Get("a", "last")
	if promised == 0 && err != nil {
		return
	}
	last, _ := strconv.Atoi(string(v))
	if last < promised {
		t.Errorf("%d was promised, %d is there", promised, last)
	}
	gone := 0
	for k, v := range dump(t, s, "b") {
		n, _ := strconv.Atoi(strings.TrimRight(v, "."))
		if strings.HasPrefix(k, "gone") {
			gone++
			if n != last {
				t.Errorf("%s is still there at %d", k, last)
			}
			continue
		}
		key, _ := strconv.Atoi(k)
		if want := last - (last-key+40)%40; n != want {
			t.Errorf("key %s holds %d at %d, want %d", k, n, last, want)
		}
	}
	if gone != 1 {
		t.Errorf("%d keys that come and go at %d", gone, last)
	}
}
