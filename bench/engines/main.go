// Command engines measures daemons that speak the Engine API side by side. The
// first one named is what the others are compared with.
//
// usage: engines [options] NAME=SOCKET NAME=SOCKET …
//
//	run        create, start, wait and remove of `true` on the default network, over the API
//	run-none   the same with network none
//	start      the start call alone
//	exec       exec of `true` in a running container: create, attached start and
//	           inspect; without -gap also back to back, in blocks of one engine
//	stop       stop of a container that obeys SIGTERM at once
//	crowd      containers started per second by eight clients, KiB of engine
//	           and of kernel memory for each idle one, seconds to remove all
//	sustained  runs per second in a row, until no mount, link or cgroup of them is left
//	logs       MiB/s from standard output to the log, and whether it is whole
//	pull       pull and unpack of debian (one large layer) from the registry
//	pull-nginx the same with nginx (that layer, a middling one and small ones)
//	save       an archive of debian, read and dropped
//	load       load of debian from the archive that the first engine saved
//	idle       resident memory of the engine without containers
//
// Times are wall-clock milliseconds, median (and minimum). Unless it says
// otherwise engines take turns, so each turn follows one of another engine, which
// leaves caches and processors as it likes; -gap puts quiet between. Memory of a crowd
// is proportional set size of the process behind the socket and of all it
// started outside containers; helpers elsewhere in the process tree are named
// by parts of their command lines in BENCH_<NAME>_MATCH, comma-separated.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const all = "idle,run,run-none,start,exec,stop,pull,pull-nginx,save,load,crowd,sustained,logs"

func main() {
	s := settings{}
	flag.StringVar(&s.image, "image", "busybox", "image with a static /bin/busybox")
	flag.IntVar(&s.turns, "n", 20, "turns of each measure")
	flag.DurationVar(&s.gap, "gap", 0, "quiet before each timed turn")
	flag.IntVar(&s.density, "density", 100, "containers in the crowd")
	flag.IntVar(&s.in, "sustained", 200, "runs in a row")
	flag.StringVar(&s.registry, "registry", "", "host:port of a registry with debian and nginx, for pull, save and load")
	only := flag.String("only", all, "measures to take")
	flag.Parse()
	var engines []*engine
	for _, arg := range flag.Args() {
		name, socket, ok := strings.Cut(arg, "=")
		if !ok {
			fmt.Fprintln(os.Stderr, "usage: engines [options] NAME=SOCKET …")
			os.Exit(2)
		}
		engines = append(engines, newEngine(name, socket))
	}
	r := report{engines: engines}
	for _, measure := range strings.Split(*only, ",") {
		if err := r.take(measure, s); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", measure, err)
			r.failed = true
		}
	}
	r.ratios()
	if r.failed {
		os.Exit(1)
	}
}

// row is one figure for each engine.
type row struct {
	label  string
	values []float64
	// more tells that larger is better.
	more bool
}

type report struct {
	engines []*engine
	rows    []row
	failed  bool
}

func (r *report) take(measure string, s settings) error {
	began := time.Now()
	defer func() { fmt.Fprintf(os.Stderr, "(%s took %.0fs)\n", measure, time.Since(began).Seconds()) }()
	byTurns := map[string]func(*engine) (float64, error){
		"run": run(s, ""), "run-none": run(s, "none"), "start": start(s), "stop": stop(s),
		"pull": pull(s, "debian"), "pull-nginx": pull(s, "nginx"), "save": save(s),
	}
	if slices.Contains([]string{"pull", "pull-nginx", "save", "load"}, measure) {
		if s.registry == "" {
			return nil
		}
		s.turns, s.gap = min(s.turns, 8), 0
	}
	switch one := byTurns[measure]; {
	case measure == "load":
		return r.addSamples("load ms", s, func() (map[string]samples, error) { return loadAll(r.engines, s) })
	case one != nil:
		return r.addSamples(measure+" ms", s, func() (map[string]samples, error) { return turns(r.engines, s, one) })
	case measure == "exec":
		return r.exec(s)
	}
	return r.takeEach(measure, s)
}

// takeEach takes the measures that need an engine to itself for a while.
func (r *report) takeEach(measure string, s settings) error {
	columns := map[string]*row{}
	var order []string
	add := func(label string, more bool, v float64) {
		if columns[label] == nil {
			columns[label] = &row{label: label, more: more}
			order = append(order, label)
		}
		columns[label].values = append(columns[label].values, v)
	}
	for _, e := range r.engines {
		switch measure {
		case "idle":
			v, err := e.rss()
			if err != nil {
				return err
			}
			add("idle RSS KiB", false, v)
		case "crowd":
			c, err := density(e, s)
			if err != nil {
				return err
			}
			add("burst /s", true, c.perSecond)
			add("engine KiB each", false, c.engineKiB)
			add("kernel KiB each", false, c.kernelKiB)
			add("remove all s", false, c.removeSeconds)
			fmt.Printf("%-26s %s: %s\n", "processes", e.name, c.processes)
		case "sustained":
			v, clean, err := sustained(e, s)
			if err != nil {
				return err
			}
			add("sustained /s", true, v)
			if !clean {
				return fmt.Errorf("%s left mounts, links or cgroups behind", e.name)
			}
		case "logs":
			var rates samples
			for range 3 {
				v, whole, err := logs(e, s)
				if err != nil {
					return err
				}
				if !whole {
					return fmt.Errorf("%s lost output", e.name)
				}
				rates = append(rates, v)
			}
			add("logs MiB/s", true, rates.median())
		default:
			return fmt.Errorf("no such measure; there are %s", all)
		}
	}
	for _, label := range order {
		r.add(*columns[label])
	}
	return nil
}

// exec takes execs by turns and, unless there is to be quiet before each, in
// blocks of one engine.
func (r *report) exec(s settings) error {
	label := "exec, by turns ms"
	if s.gap > 0 {
		label = "exec, after quiet ms"
	}
	err := r.addSamples(label, s, func() (map[string]samples, error) { return execAll(r.engines, s, turns) })
	if err != nil || s.gap > 0 {
		return err
	}
	return r.addSamples("exec, back to back ms", s, func() (map[string]samples, error) { return execAll(r.engines, s, blocks) })
}

func (r *report) addSamples(label string, s settings, take func() (map[string]samples, error)) error {
	got, err := take()
	if err != nil {
		return err
	}
	median, least := row{label: label}, row{label: label + ", min"}
	for _, e := range r.engines {
		median.values = append(median.values, got[e.name].median())
		least.values = append(least.values, got[e.name].min())
	}
	r.add(median)
	r.add(least)
	return nil
}

// add prints a row at once, so that a run that is cut short was not in vain.
func (r *report) add(x row) {
	r.rows = append(r.rows, x)
	fmt.Printf("%-26s", x.label)
	for i, e := range r.engines {
		fmt.Printf("  %s %.2f", e.name, x.values[i])
	}
	fmt.Println()
}

// ratios compares every engine with the first.
func (r *report) ratios() {
	for i, e := range r.engines[1:] {
		fmt.Printf("\n%s compared with %s\n", e.name, r.engines[0].name)
		for _, x := range r.rows {
			base, v := x.values[0], x.values[i+1]
			if base <= 0 || v <= 0 || slices.Contains([]float64{base, v}, 0) {
				continue
			}
			how, factor := "1/%.1f", base/v
			if x.more {
				how, factor = "%.1f×", v/base
			} else if factor < 1 {
				how, factor = "%.2f×", v/base
			}
			fmt.Printf("  %-26s "+how+"\n", x.label, factor)
		}
	}
}
