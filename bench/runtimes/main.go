// Command runtimes measures OCI runtimes side by side: create, start and
// delete of a container that runs `true`, as a shim does it, by turns.
//
// usage: runtimes [options] NAME=PROGRAM NAME=PROGRAM …
//
// Times are wall-clock milliseconds, median (and 10th percentile, which a busy
// machine disturbs less) over all turns; what follows compares the medians with
// the first runtime's. The whole is from
// the start of create to the end of delete, the container's own life included.
// The configuration is what `runc spec` writes: all namespaces, default
// capabilities and mounts, no limits.
//
// Everything happens in a mount namespace of its own in which the unified
// hierarchy of a hybrid host is unmounted, because crun refuses such hosts.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("runtimes: ")
	var (
		n      = flag.Int("n", 100, "turns of each runtime")
		gap    = flag.Duration("gap", 0, "quiet before each turn")
		box    = flag.String("busybox", "/bin/busybox", "static busybox for the root file system")
		memory = flag.Int64("memory", 0, "memory limit of the container in bytes, 0 for none")
	)
	flag.Parse()
	// Children are born in the namespaces of this thread.
	runtime.LockOSThread()
	if err := measure(flag.Args(), *n, *gap, *box, *memory); err != nil {
		log.Fatal(err)
	}
}

func measure(args []string, n int, gap time.Duration, box string, memory int64) (err error) {
	if err := enter(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/run", "wherry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := makeBundle(dir, box, memory); err != nil {
		return err
	}
	var all []*contender
	for _, arg := range args {
		name, program, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PROGRAM", arg)
		}
		if program, err = exec.LookPath(program); err != nil {
			return err
		}
		if program, err = filepath.Abs(program); err != nil {
			return err
		}
		all = append(all, &contender{name: name, program: program, root: filepath.Join(dir, "root-"+name), bundle: dir})
	}
	const warm = 3
	for turn := range n + warm {
		for i := range all {
			c := all[(i+turn)%len(all)]
			time.Sleep(gap)
			if err := c.once(turn >= warm, strconv.Itoa(turn)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	show(all)
	return nil
}

// enter makes a mount namespace without the unified hierarchy of a hybrid host
// and adopts the containers whose runtime has ended, as a shim does.
func enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified); err == nil {
		if err := unix.Unmount(unified, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", unified, err)
		}
	}
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// makeBundle writes a root file system and runc's own idea of a configuration.
func makeBundle(dir, box string, memory int64) error {
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	data, err := os.ReadFile(box)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("busybox", filepath.Join(bin, "true")); err != nil {
		return err
	}
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	name := filepath.Join(dir, "config.json")
	if data, err = os.ReadFile(name); err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	linux, ok2 := spec["linux"].(map[string]any)
	if !ok || !ok2 {
		return errors.New("runc spec wrote no process or no linux section")
	}
	process["terminal"], process["args"] = false, []string{"/bin/true"}
	if memory > 0 {
		linux["resources"].(map[string]any)["memory"] = map[string]any{"limit": memory}
	}
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}

// The parts of one turn.
const (
	partCreate = iota
	partStart
	partExit
	partDelete
	partWhole
	parts
)

var partNames = [parts]string{"create", "start", "until exit", "delete", "whole"}

// contender is one runtime.
type contender struct {
	name, program, root, bundle string
	times                       [parts][]float64
}

// once runs one container from create to delete.
func (c *contender) once(keep bool, turn string) error {
	id := "bench-" + c.name + "-" + turn
	pidFile := filepath.Join(c.bundle, "pid")
	var t [parts + 1]time.Time
	t[partCreate] = time.Now()
	if err := c.run("create", "--bundle", c.bundle, "--pid-file", pidFile, id); err != nil {
		return err
	}
	t[partStart] = time.Now()
	if err := c.run("start", id); err != nil {
		return err
	}
	t[partExit] = time.Now()
	if err := await(pidFile); err != nil {
		return err
	}
	t[partDelete] = time.Now()
	if err := c.run("delete", id); err != nil {
		return err
	}
	end := time.Now()
	if !keep {
		return nil
	}
	t[partWhole] = end
	for i := range partWhole {
		c.times[i] = append(c.times[i], milliseconds(t[i+1].Sub(t[i])))
	}
	c.times[partWhole] = append(c.times[partWhole], milliseconds(end.Sub(t[partCreate])))
	return nil
}

func (c *contender) run(args ...string) error {
	cmd := exec.Command(c.program, append([]string{"--root", c.root}, args...)...)
	// A pipe would be held open by the container.
	f, err := os.CreateTemp(c.bundle, "stderr-")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	cmd.Stderr = f
	if err := cmd.Run(); err != nil {
		said := make([]byte, 2000)
		n, _ := f.ReadAt(said, 0)
		return fmt.Errorf("%s: %w: %s", args[0], err, said[:n])
	}
	return nil
}

// await reaps the container's process.
func await(pidFile string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil && (!status.Exited() || status.ExitStatus() != 0) {
		err = fmt.Errorf("the container ended with %#x", int(status))
	}
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// at is the value below which the share p of all lies.
func at(v []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

func show(all []*contender) {
	fmt.Printf("%-12s", "ms")
	for _, c := range all {
		fmt.Printf(" %22s", c.name)
	}
	fmt.Println("\n" + strings.Repeat("-", 12+23*len(all)))
	for i, name := range partNames {
		fmt.Printf("%-12s", name)
		base := at(all[0].times[i], 0.5)
		for j, c := range all {
			m, p10 := at(c.times[i], 0.5), at(c.times[i], 0.1)
			cell := fmt.Sprintf("%.2f (%.2f)", m, p10)
			if j > 0 {
				cell += fmt.Sprintf(" %.2f×", m/base)
			}
			fmt.Printf(" %22s", cell)
		}
		fmt.Println()
	}
}
