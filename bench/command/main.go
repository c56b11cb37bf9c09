// Command command measures whole command lines, from exec to exit, beside the
// kernel's own floor for one container (bench/floor), by turns: of one run each, or
// of several back to back (-block).
//
// usage: command [options] NAME=COMMAND LINE …
//
// A command line is split at spaces, nothing else. Times are wall-clock
// milliseconds; the floor's start-up is not part of its figures, a command
// line's is. With -sustained the first command line runs that often in a row,
// and then it is waited for until no more cgroups, mounts, links and namespaces
// are on the machine than before.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("command: ")
	var (
		n         = flag.Int("n", 50, "turns of each")
		gap       = flag.Duration("gap", 0, "quiet before each turn")
		block     = flag.Int("block", 1, "runs in a row of a turn; of more than one the first does not count")
		program   = flag.String("floor", "", "the program of bench/floor; none: no floor")
		box       = flag.String("busybox", "/bin/busybox", "static busybox for the floor's root file system")
		scratch   = flag.String("scratch", "", "directory on the file system to be measured, default the one for temporary files")
		sustained = flag.Int("sustained", 0, "runs in a row of the first command line, instead of turns")
	)
	flag.Parse()
	var all []*contender
	for _, arg := range flag.Args() {
		name, line, ok := strings.Cut(arg, "=")
		words := strings.Fields(line)
		if !ok || len(words) == 0 {
			log.Fatalf("%q is not NAME=COMMAND", arg)
		}
		all = append(all, &contender{name: name, once: func() (float64, error) { return whole(words) }})
	}
	if len(all) == 0 {
		log.Fatal("no command lines given")
	}
	err := func() error {
		if *sustained > 0 {
			return inARow(all[0], *sustained)
		}
		if *program != "" {
			f, err := startFloor(*program, *box, *scratch)
			if err != nil {
				return err
			}
			defer f.stop()
			all = append([]*contender{{name: "floor", once: f.once}}, all...)
		}
		return turns(all, *n, *gap, *block)
	}()
	if err != nil {
		log.Fatal(err)
	}
}

// contender is one thing under measurement; once returns milliseconds.
type contender struct {
	name  string
	once  func() (float64, error)
	times []float64
}

// whole runs a command line from exec to exit.
func whole(words []string) (float64, error) {
	cmd := exec.Command(words[0], words[1:]...)
	var out bytes.Buffer
	cmd.Stderr = &out
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out.Bytes())
	}
	return milliseconds(took), err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func turns(all []*contender, n int, gap time.Duration, block int) error {
	const warm = 3
	for turn := range n + warm {
		for i := range all {
			c := all[(i+turn)%len(all)]
			time.Sleep(gap)
			for run := range block {
				ms, err := c.once()
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				if turn >= warm && (run > 0 || block == 1) {
					c.times = append(c.times, ms)
				}
			}
		}
	}
	fmt.Printf("%-10s %10s %10s %10s   of %s\n", "ms", "median", "10 %", "90 %", all[0].name)
	for _, c := range all {
		m := at(c.times, 0.5)
		fmt.Printf("%-10s %10.2f %10.2f %10.2f   %.1f×\n", c.name, m, at(c.times, 0.1), at(c.times, 0.9), m/at(all[0].times, 0.5))
	}
	return nil
}

// at is the value below which the share p of all lies.
func at(v []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// floor is the running program of bench/floor.
type floor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string
}

func startFloor(program, box, scratch string) (*floor, error) {
	dir, err := os.MkdirTemp(scratch, "wherry-floor-")
	if err != nil {
		return nil, err
	}
	f := &floor{dir: dir}
	if err := f.start(program, box); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return f, nil
}

func (f *floor) start(program, box string) error {
	lower := filepath.Join(f.dir, "lower")
	for _, d := range []string{"bin", "dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(lower, d), 0o755); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(box)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(lower, "bin", "true"), data, 0o755); err != nil {
		return err
	}
	f.cmd = exec.Command(program, lower, f.dir)
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	f.out = bufio.NewReader(out)
	return f.cmd.Start()
}

func (f *floor) once() (float64, error) {
	if _, err := io.WriteString(f.in, "\n"); err != nil {
		return 0, err
	}
	line, err := f.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	us, err := strconv.Atoi(strings.TrimSpace(line))
	return float64(us) / 1000, err
}

func (f *floor) stop() {
	_ = f.in.Close()
	_ = f.cmd.Wait()
	_ = os.RemoveAll(f.dir)
}

// inARow runs one command line over and over, then waits until what it used is
// given back.
func inARow(c *contender, n int) error {
	for range 3 {
		if _, err := c.once(); err != nil {
			return err
		}
	}
	time.Sleep(2 * time.Second) // until that is gone, and pools are full
	before, err := used()
	if err != nil {
		return err
	}
	began := time.Now()
	for range n {
		ms, err := c.once()
		if err != nil {
			return err
		}
		c.times = append(c.times, ms)
	}
	ran := time.Since(began)
	left, err := settle(before, 2*ran+30*time.Second)
	if err != nil {
		return err
	}
	settled := time.Since(began)
	part := min(n, max(n/10, 100))
	first, last := at(c.times[:part], 0.5), at(c.times[n-part:], 0.5)
	fmt.Printf("%s: %d in a row, median of the first %d %.2f ms, of the last %d %.2f ms: %.2f×\n", c.name, n, part, first, part, last, last/first)
	fmt.Printf("%s: %.2f ms each, %.2f ms until nothing was left of them (%v after the last)\n", c.name,
		milliseconds(ran)/float64(n), milliseconds(settled)/float64(n), (settled - ran).Round(time.Millisecond))
	if left != "" {
		return fmt.Errorf("%s left behind: %s", c.name, left)
	}
	return nil
}

// settle waits until no more is used than before, and tells what is if that
// does not happen.
func settle(before map[string]int, limit time.Duration) (left string, err error) {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		now, err := used()
		if err != nil {
			return "", err
		}
		left = ""
		for what, n := range now {
			if n > before[what] {
				left += fmt.Sprintf(" %d %s", n-before[what], what)
			}
		}
		if left == "" || time.Now().After(end) {
			return left, nil
		}
	}
}

// used counts what containers may leave on the machine.
func used() (map[string]int, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	groups := 0
	err = filepath.WalkDir("/sys/fs/cgroup", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups++
		}
		return nil // one that has just gone is not counted
	})
	return map[string]int{"mounts": bytes.Count(mounts, []byte("\n")), "links": len(links), "namespaces": namespaces(), "cgroups": groups}, err
}

// namespaces are those that a process lives in or has a descriptor of.
func namespaces() int {
	kinds := []string{"mnt", "pid", "ipc", "uts", "net", "cgroup", "user", "time"}
	seen := map[string]bool{}
	for _, pattern := range []string{"/proc/[0-9]*/ns/*", "/proc/[0-9]*/fd/*"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			to, err := os.Readlink(name)
			if kind, _, ok := strings.Cut(to, ":["); err == nil && ok && slices.Contains(kinds, kind) {
				seen[to] = true
			}
		}
	}
	return len(seen)
}
