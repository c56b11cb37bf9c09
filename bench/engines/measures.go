package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What containers run; the image needs a static busybox at that path only.
var (
	runTrue  = []string{"/bin/busybox", "true"}
	runSleep = []string{"/bin/busybox", "sleep", "100000"}
	runTerm  = []string{"/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done"}
)

// settings of a measurement.
type settings struct {
	image    string
	turns    int
	gap      time.Duration
	density  int
	in       int // runs in a row of "sustained"
	registry string
}

// samples are what one measure gave for one engine.
type samples []float64

func (s samples) median() float64 {
	if len(s) == 0 {
		return 0
	}
	c := slices.Sorted(slices.Values(s))
	return c[len(c)/2]
}

func (s samples) min() float64 {
	if len(s) == 0 {
		return 0
	}
	return slices.Min(s)
}

// timed runs f and returns milliseconds.
func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return float64(time.Since(began).Microseconds()) / 1000, err
}

// turns runs a measure by turns on all engines, in an order that rotates, and
// drops the first two rounds.
func turns(engines []*engine, s settings, one func(*engine) (float64, error)) (map[string]samples, error) {
	return inBlocks(engines, s, 1, one)
}

// block is how many times in a row an engine is measured back to back.
const block = 20

// blocks runs a measure back to back: a block of one engine, then one of the next,
// in an order that rotates. The first of each block, which follows another
// engine's, is dropped, and so are the first two rounds.
func blocks(engines []*engine, s settings, one func(*engine) (float64, error)) (map[string]samples, error) {
	s.turns = (s.turns + 3) / 4
	return inBlocks(engines, s, block, one)
}

func inBlocks(engines []*engine, s settings, size int, one func(*engine) (float64, error)) (map[string]samples, error) {
	out := map[string]samples{}
	for round := range s.turns + 2 {
		for i := range engines {
			e := engines[(i+round)%len(engines)]
			for j := range size {
				time.Sleep(s.gap)
				v, err := one(e)
				if err != nil {
					return nil, err
				}
				if round >= 2 && (j > 0 || size == 1) {
					out[e.name] = append(out[e.name], v)
				}
			}
		}
	}
	return out, nil
}

// run is create, start, wait and remove of `true`.
func run(s settings, network string) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		return timed(func() error {
			id, err := e.create(s.image, network, runTrue...)
			if err != nil {
				return err
			}
			if err := e.start(id); err != nil {
				return err
			}
			if err := e.wait(id); err != nil {
				return err
			}
			return e.remove(id)
		})
	}
}

// start is the start call alone.
func start(s settings) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		id, err := e.create(s.image, "", runSleep...)
		if err != nil {
			return 0, err
		}
		t, err := timed(func() error { return e.start(id) })
		if err != nil {
			return 0, err
		}
		return t, e.remove(id)
	}
}

// stop ends a container whose process obeys SIGTERM at once.
func stop(s settings) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		id, err := e.create(s.image, "", runTerm...)
		if err != nil {
			return 0, err
		}
		if err := e.start(id); err != nil {
			return 0, err
		}
		time.Sleep(150 * time.Millisecond) // until the trap is set
		t, err := timed(func() error { return e.call("POST", "/containers/"+id+"/stop", nil, nil) })
		if err != nil {
			return 0, err
		}
		return t, e.remove(id)
	}
}

// exec runs `true` in a container that is there.
func exec(ids map[string]string) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		return timed(func() error {
			var made struct{ ID string }
			if err := e.call("POST", "/containers/"+ids[e.name]+"/exec", object{"Cmd": runTrue, "AttachStdout": true}, &made); err != nil {
				return err
			}
			if _, err := e.raw("POST", "/exec/"+made.ID+"/start", object{"Detach": false, "Tty": false}); err != nil {
				return err
			}
			var state struct{ ExitCode int }
			if err := e.call("GET", "/exec/"+made.ID+"/json", nil, &state); err != nil {
				return err
			}
			if state.ExitCode != 0 {
				return fmt.Errorf("%s: exec ended with %d", e.name, state.ExitCode)
			}
			return nil
		})
	}
}

// order is turns or blocks.
type order func([]*engine, settings, func(*engine) (float64, error)) (map[string]samples, error)

// execAll starts the containers that exec needs, measures and removes them.
func execAll(engines []*engine, s settings, in order) (map[string]samples, error) {
	ids := map[string]string{}
	for _, e := range engines {
		id, err := e.create(s.image, "", runSleep...)
		if err != nil {
			return nil, err
		}
		defer func() { _ = e.remove(id) }()
		if err := e.start(id); err != nil {
			return nil, err
		}
		ids[e.name] = id
	}
	return in(engines, s, exec(ids))
}

// eight does n things with eight clients and returns the first error.
func eight(n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		next  = make(chan int)
	)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					once.Do(func() { first = err })
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return first
}

// crowd is what a crowd of idle containers costs.
type crowd struct {
	perSecond     float64 // started
	engineKiB     float64 // each
	kernelKiB     float64 // each
	removeSeconds float64 // all of them
	processes     string
}

// bursts that the rate is the median of.
const bursts = 3

func density(e *engine, s settings) (crowd, error) {
	if _, err := start(s)(e); err != nil { // warm-up
		return crowd{}, err
	}
	var all []crowd
	for range bursts {
		c, err := burst(e, s)
		if err != nil {
			return c, err
		}
		all = append(all, c)
	}
	c := all[0] // memory is that of the first, before anything is used again
	slices.SortFunc(all, func(a, b crowd) int { return cmp.Compare(a.perSecond, b.perSecond) })
	c.perSecond = all[bursts/2].perSecond
	return c, nil
}

func burst(e *engine, s settings) (crowd, error) {
	var c crowd
	time.Sleep(2 * time.Second) // what was there before is to be gone
	before, err := e.pss()
	if err != nil {
		return c, err
	}
	kernel := kernelMemory()
	ids := make([]string, s.density)
	ms, err := timed(func() error {
		return eight(s.density, func(i int) (err error) {
			if ids[i], err = e.create(s.image, "", runSleep...); err != nil {
				return err
			}
			return e.start(ids[i])
		})
	})
	if err != nil {
		return c, err
	}
	c.perSecond = float64(s.density) / ms * 1000
	time.Sleep(2 * time.Second)
	after, err := e.pss()
	if err != nil {
		return c, err
	}
	c.engineKiB = (after - before) / float64(s.density)
	c.kernelKiB = (kernelMemory() - kernel) / float64(s.density)
	procs, err := e.processes()
	if err != nil {
		return c, err
	}
	count := map[string]int{}
	for _, name := range procs {
		count[name]++
	}
	var names []string
	for name, n := range count {
		names = append(names, fmt.Sprintf("%s×%d", name, n))
	}
	slices.Sort(names)
	c.processes = strings.Join(names, " ")
	ms, err = timed(func() error { return eight(s.density, func(i int) error { return e.remove(ids[i]) }) })
	c.removeSeconds = ms / 1000
	return c, err
}

// used counts mounts, links and cgroups of the machine.
func used() [3]int {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	links, _ := os.ReadDir("/sys/class/net")
	groups, _ := os.ReadFile("/proc/cgroups")
	n := 0
	for line := range strings.Lines(string(groups)) {
		var name string
		var id, count int
		if c, _ := fmt.Sscan(line, &name, &id, &count); c == 3 {
			n += count
		}
	}
	return [3]int{strings.Count(string(mounts), "\n"), len(links), n}
}

// sustained is runs per second over many in a row, until nothing of them is left.
func sustained(e *engine, s settings) (perSecond float64, clean bool, err error) {
	before, began := used(), time.Now()
	for range s.in {
		if _, err := run(s, "")(e); err != nil {
			return 0, false, err
		}
	}
	settled := func() bool {
		now := used()
		return now[0] <= before[0] && now[1] <= before[1] && now[2] <= before[2]
	}
	for end := time.Now().Add(4*time.Since(began) + 30*time.Second); !settled() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	return float64(s.in) / time.Since(began).Seconds(), settled(), nil
}

// logs is MiB/s from a container's output to the engine's log; whole tells
// whether all of it can be read back.
func logs(e *engine, s settings) (rate float64, whole bool, err error) {
	const mib = 64
	id, err := e.create(s.image, "none", "/bin/busybox", "sh", "-c",
		fmt.Sprintf("yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz | head -c %d", mib<<20))
	if err != nil {
		return 0, false, err
	}
	ms, err := timed(func() error {
		if err := e.start(id); err != nil {
			return err
		}
		return e.wait(id)
	})
	if err != nil {
		return 0, false, err
	}
	data, err := e.raw("GET", "/containers/"+id+"/logs?stdout=1&stderr=1", nil)
	if err != nil {
		return 0, false, err
	}
	got := 0
	for len(data) >= 8 {
		n := int(binary.BigEndian.Uint32(data[4:8]))
		got += n
		data = data[min(len(data), 8+n):]
	}
	return mib / ms * 1000, got == mib<<20, e.remove(id)
}

// pull fetches and unpacks an image of the registry, after removing it and
// what shares layers with it. The disk is quiet when it begins.
func pull(s settings, image string) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		if err := e.forget(s); err != nil {
			return 0, err
		}
		return timed(func() error {
			text, err := e.pull(s.registry + "/" + image)
			switch {
			case err != nil:
				return err
			case strings.Contains(text, "Already exists"), strings.Contains(text, "up to date"), !strings.Contains(text, "Pull complete"):
				return fmt.Errorf("%s: the image was not pulled anew: %.300s", e.name, text)
			}
			return nil
		})
	}
}

// pull returns what the engine told while it pulled a reference without tag.
func (e *engine) pull(ref string) (string, error) {
	data, err := e.raw("POST", "/images/create?fromImage="+ref+"&tag=latest", nil)
	text := string(data)
	if err == nil && strings.Contains(text, `"errorDetail"`) {
		err = fmt.Errorf("%s: pull: %.300s", e.name, text)
	}
	return text, err
}

// forget removes the images that are pulled and loaded, and waits until they
// are gone from the disk.
func (e *engine) forget(s settings) error {
	for _, image := range []string{"debian", "nginx"} {
		// The engine may not have it.
		_, _ = e.raw("DELETE", "/images/"+s.registry+"/"+image+":latest?force=1", nil)
	}
	// What images were made of may be collected in the background; a prune waits for that.
	if err := e.call("POST", "/images/prune", nil, nil); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

// save writes debian into an archive that nobody keeps.
func save(s settings) func(*engine) (float64, error) {
	return func(e *engine) (float64, error) {
		if _, err := e.pull(s.registry + "/debian"); err != nil {
			return 0, err
		}
		return timed(func() error { return e.save(s, io.Discard) })
	}
}

func (e *engine) save(s settings, w io.Writer) error {
	resp, err := e.client.Get("http://engine/images/" + s.registry + "/debian:latest/get")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: save: %s", e.name, resp.Status)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

// loadAll loads debian from one archive, that of the first engine, after removing it.
func loadAll(engines []*engine, s settings) (map[string]samples, error) {
	var archive bytes.Buffer
	if _, err := engines[0].pull(s.registry + "/debian"); err != nil {
		return nil, err
	}
	if err := engines[0].save(s, &archive); err != nil {
		return nil, err
	}
	return turns(engines, s, func(e *engine) (float64, error) {
		if err := e.forget(s); err != nil {
			return 0, err
		}
		return timed(func() error {
			resp, err := e.client.Post("http://engine/images/load", "application/x-tar", bytes.NewReader(archive.Bytes()))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err == nil && !strings.Contains(string(text), "Loaded image") {
				err = fmt.Errorf("%s: load: %s %.300s", e.name, resp.Status, text)
			}
			return err
		})
	})
}
