package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
)

func statsCommand() command {
	return command{
		group: "container", name: "stats", top: "stats",
		usage: "[OPTIONS] [CONTAINER...]", short: "Watch the CPU, memory, network and disk use of containers",
		args: minArgs(0),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			s := &statsView{a: a, rows: map[string]*statsRow{}}
			f.BoolVarP(&s.all, "all", "a", false, "Include containers that are not running")
			f.StringVar(&s.format, "format", "", formatHelp)
			f.BoolVar(&s.once, "no-stream", false, "Print one set of figures and stop")
			f.BoolVar(&s.noTrunc, "no-trunc", false, "Print long values in full")
			return s.run
		},
	}
}

const statsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

// statsView is the live table; rows are in order of appearance.
type statsView struct {
	a                  *app
	all, once, noTrunc bool
	format             string

	mu    sync.Mutex
	order []string
	rows  map[string]*statsRow
	err   error
	wg    sync.WaitGroup
}

// statsRow is what templates of `stats --format` see.
type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string

	cancel context.CancelFunc
}

func (s *statsView) run(ctx context.Context, args []string) error {
	cl, err := s.a.client()
	if err != nil {
		return err
	}
	tmpl := format.Resolve(s.format, s.a.config().StatsFormat, statsTable)
	if _, err := format.Parse(tmpl); err != nil {
		return err
	}
	if s.once {
		return s.runOnce(ctx, cl, args, tmpl)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	if s.a.outTerminal() {
		fmt.Fprint(s.a.out, "\x1b[2J")
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%2 == 0 {
			if err := s.follow(ctx, cl, args); err != nil {
				return endOf(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := s.draw(tmpl, true); err != nil {
			return err
		}
		if len(args) > 0 && s.empty() {
			return s.err
		}
	}
}

func (s *statsView) runOnce(ctx context.Context, cl *client.Client, args []string, tmpl string) error {
	names, err := s.names(ctx, cl, args)
	if err != nil {
		return err
	}
	for _, n := range names {
		s.order = append(s.order, n)
		s.rows[n] = emptyStats(n)
		s.wg.Go(func() { s.sample(ctx, cl, n, false) })
	}
	s.wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err := s.draw(tmpl, false); err != nil {
		return err
	}
	return s.err
}

// names returns what was asked for, or the containers there are.
func (s *statsView) names(ctx context.Context, cl *client.Client, args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	q := url.Values{}
	if s.all {
		q.Set("all", "1")
	}
	var list []container.Summary
	if err := cl.Get(ctx, "/containers/json", q, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range list {
		names = append(names, c.ID)
	}
	return names, nil
}

// follow opens a stream for each container that has none yet, and drops those
// that are gone.
func (s *statsView) follow(ctx context.Context, cl *client.Client, args []string) error {
	names, err := s.names(ctx, cl, args)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(args) == 0 {
		s.order = slices.DeleteFunc(s.order, func(n string) bool {
			if slices.Contains(names, n) {
				return false
			}
			if r := s.rows[n]; r != nil && r.cancel != nil {
				r.cancel()
			}
			delete(s.rows, n)
			return true
		})
	} else if s.order != nil {
		return nil
	}
	for _, n := range names {
		if s.rows[n] != nil {
			continue
		}
		r := emptyStats(n)
		one, cancel := context.WithCancel(ctx)
		r.cancel = cancel
		s.order = append(s.order, n)
		s.rows[n] = r
		s.wg.Go(func() { s.sample(one, cl, n, true) })
	}
	return nil
}

func (s *statsView) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order) == 0
}

// sample reads one stream into its row.
func (s *statsView) sample(ctx context.Context, cl *client.Client, name string, stream bool) {
	q := url.Values{"stream": {"0"}}
	if stream {
		q.Set("stream", "1")
	}
	body, err := cl.Stream(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "stats"), Query: q})
	if err != nil {
		s.drop(ctx, name, err)
		return
	}
	defer body.Close() //nolint:errcheck // read to its end
	dec := json.NewDecoder(body)
	for {
		var r container.StatsResponse
		if err := dec.Decode(&r); err != nil {
			return
		}
		s.mu.Lock()
		if row := s.rows[name]; row != nil {
			row.fill(r, s.noTrunc)
		}
		s.mu.Unlock()
	}
}

func (s *statsView) drop(ctx context.Context, name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.err = err
	}
	delete(s.rows, name)
	s.order = slices.DeleteFunc(s.order, func(n string) bool { return n == name })
}

func (s *statsView) draw(tmpl string, clear bool) error {
	s.mu.Lock()
	rows := make([]*statsRow, 0, len(s.order))
	for _, n := range s.order {
		r := *s.rows[n]
		rows = append(rows, &r)
	}
	s.mu.Unlock()
	if s.err != nil && len(rows) == 0 {
		return nil
	}
	var b bytes.Buffer
	header := &statsRow{
		BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", ID: "CONTAINER ID", MemPerc: "MEM %",
		MemUsage: "MEM USAGE / LIMIT", Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS",
	}
	if err := format.Rows(&b, tmpl, header, rows); err != nil {
		return err
	}
	text := b.String()
	if clear && s.a.outTerminal() {
		text = "\x1b[H" + string(bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\x1b[K\n"))) + "\x1b[J"
	}
	_, err := fmt.Fprint(s.a.out, text)
	return err
}

func emptyStats(name string) *statsRow {
	return &statsRow{
		Container: name, ID: shortID(name), Name: "--", CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--",
		NetIO: "--", BlockIO: "--", PIDs: "--",
	}
}

func (r *statsRow) fill(s container.StatsResponse, noTrunc bool) {
	r.Name = trimSlash(s.Name)
	r.ID = maybeShort(s.ID, noTrunc)
	r.CPUPerc = fmt.Sprintf("%.2f%%", cpuPercent(s))
	used := memoryUsed(s.MemoryStats)
	r.MemUsage = units.BytesSize(used) + " / " + units.BytesSize(float64(s.MemoryStats.Limit))
	r.MemPerc = "0.00%"
	if s.MemoryStats.Limit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", used/float64(s.MemoryStats.Limit)*100)
	}
	var rx, tx, rd, wr uint64
	for _, n := range s.Networks {
		rx += n.RxBytes
		tx += n.TxBytes
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch e.Op {
		case "Read", "read":
			rd += e.Value
		case "Write", "write":
			wr += e.Value
		}
	}
	r.NetIO = human(rx) + " / " + human(tx)
	r.BlockIO = human(rd) + " / " + human(wr)
	r.PIDs = fmt.Sprint(s.PidsStats.Current)
}

func trimSlash(s string) string {
	if s != "" && s[0] == '/' {
		return s[1:]
	}
	return s
}

// cpuPercent is the share of one processor between two samples; 200 % is two.
func cpuPercent(s container.StatsResponse) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if used <= 0 || system <= 0 {
		return 0
	}
	return used / system * cpus * 100
}

// memoryUsed leaves the page cache that can be reclaimed at once out.
func memoryUsed(m container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, v2
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return float64(m.Usage - v)
		}
	}
	return float64(m.Usage)
}
