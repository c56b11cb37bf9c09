package supervisor

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/keeper/successor"
)

const role = "supervisor"

// keeperLink is the connection to the keeper, across keepers: when one dies it
// starts the next and leaves everything with that one.
type keeperLink struct {
	s      *Supervisor
	exited *exitTable

	// ended is called when the keeper that was told to end everything is gone: it
	// may have been killed before it told us.
	ended func()

	mu   sync.Mutex
	c    *fdstore.Client
	end  bool     // the keeper's death is expected
	late []string // sets that dropLater will drop
}

// keeperPatience is how long a new keeper may take before another is tried.
const keeperPatience = 5 * time.Second

// connect finds the keeper that started us, or starts one if that has died.
func (k *keeperLink) connect(ctx context.Context) error {
	c, err := fdstore.Dial(k.s.execRoot, role, k.exited.note)
	if err != nil {
		k.spawn()
		dctx, cancel := context.WithTimeout(ctx, keeperPatience)
		defer cancel()
		if c, err = fdstore.Redial(dctx, k.s.execRoot, role, k.exited.note); err != nil {
			return err
		}
	}
	k.use(ctx, c)
	return nil
}

func (k *keeperLink) use(ctx context.Context, c *fdstore.Client) {
	k.mu.Lock()
	k.c = c
	k.mu.Unlock()
	go func() {
		<-c.Done()
		k.mu.Lock()
		end := k.end
		k.mu.Unlock()
		switch {
		case end:
			k.ended()
		case ctx.Err() == nil:
			k.replace(ctx)
		}
	}()
}

// replace starts a new keeper, unless someone else does, and leaves all
// descriptors with it.
func (k *keeperLink) replace(ctx context.Context) {
	k.s.log.Warn("the keeper is gone, starting another")
	for ctx.Err() == nil {
		k.spawn()
		dctx, cancel := context.WithTimeout(ctx, keeperPatience)
		c, err := fdstore.Redial(dctx, k.s.execRoot, role, k.exited.note)
		cancel()
		if err != nil {
			k.s.log.Error("no keeper", "err", err)
			continue
		}
		k.use(ctx, c)
		for _, t := range k.s.list() {
			t.leaveAll()
		}
		k.s.roots.leaveAll()
		k.s.waits.leaveAll()
		k.put(spoolSet, nil, int(k.s.spool.f.Fd()))
		return
	}
}

// spawn starts a keeper. It ends by itself if there is one already.
func (k *keeperLink) spawn() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		k.s.log.Error("cannot start a keeper", "err", err)
		return
	}
	defer null.Close()
	argv := []string{os.Args[0], "keeper", "--exec-root", k.s.execRoot, "--data-root", k.s.dataRoot}
	p, err := os.StartProcess(keeper.Program(), argv, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		k.s.log.Error("cannot start a keeper", "err", err)
		return
	}
	go func() { _, _ = p.Wait() }()
}

func (k *keeperLink) client() *fdstore.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.c
}

func (k *keeperLink) pid() int {
	if c := k.client(); c != nil {
		return c.KeeperPid()
	}
	return 0
}

// put leaves duplicates. Without a keeper nothing happens: the next one is
// given everything.
func (k *keeperLink) put(name string, meta any, files ...int) {
	var b []byte
	if meta != nil {
		var err error
		if b, err = json.Marshal(meta); err != nil {
			k.s.log.Error("cannot describe descriptors", "set", name, "err", err)
			return
		}
	}
	if c := k.client(); c != nil {
		if err := c.Put(name, b, files...); err != nil {
			k.s.log.Debug("cannot leave descriptors", "set", name, "err", err)
		}
	}
}

func (k *keeperLink) drop(name string) {
	if c := k.client(); c != nil {
		if err := c.Drop(name); err != nil {
			k.s.log.Debug("cannot drop descriptors", "set", name, "err", err)
		}
	}
}

// dropPause is how long sets of no use are collected before they are dropped.
const dropPause = 20 * time.Millisecond

// dropLater drops a set of no use a little later, together with others.
func (k *keeperLink) dropLater(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.late) == 0 {
		time.AfterFunc(dropPause, k.dropNow)
	}
	k.late = append(k.late, name)
}

// dropNow drops what dropLater has collected.
func (k *keeperLink) dropNow() {
	k.mu.Lock()
	late := k.late
	k.late = nil
	k.mu.Unlock()
	for _, name := range late {
		k.drop(name)
	}
}

// upgradePatience is how long keeper and net may take to become another build.
const upgradePatience = 20 * time.Second

// upgrade makes the keeper and net the program.
func (k *keeperLink) upgrade(ctx context.Context, program string) []successor.Outcome {
	ctx, cancel := context.WithTimeout(ctx, upgradePatience)
	defer cancel()
	out, err := k.client().Upgrade(ctx, program)
	if err != nil {
		return []successor.Outcome{{Helper: "keeper", Refused: err.Error()}}
	}
	return out
}

func (k *keeperLink) all() ([]fdstore.Set, error) { return k.client().All() }

func (k *keeperLink) shutdown() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end = true
	return k.c.Shutdown()
}

// leaveAll gives the keeper everything a task has.
func (t *taskEntry) leaveAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deleted {
		return
	}
	t.leaveLocked()
	for _, e := range t.execs {
		if !e.done && e.io != nil {
			e.leaveLocked()
		}
	}
}

func (rs *roots) leaveAll() {
	rs.mu.Lock()
	all := make(map[string]*root, len(rs.m))
	for id, r := range rs.m {
		all[id] = r
	}
	rs.mu.Unlock()
	for id, r := range all {
		r.mu.Lock()
		if r.file != nil {
			rs.keep.put(rootSet(id), r.meta, int(r.file.Fd()))
		}
		r.mu.Unlock()
	}
}

// exitTable holds what the keeper tells about processes that it reaped, and
// those who wait for that.
type exitTable struct {
	mu      sync.Mutex
	known   map[exitKey]int
	order   []exitKey
	waiting map[exitKey]chan struct{}
}

type exitKey struct {
	pid   int
	start uint64
}

// maxKnown bounds the table; orphans of all kinds come by.
const maxKnown = 4096

func newExitTable() *exitTable {
	return &exitTable{known: map[exitKey]int{}, waiting: map[exitKey]chan struct{}{}}
}

func (x *exitTable) note(e exits.Exit) {
	k := exitKey{e.Pid, e.Start}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.known[k]; !ok {
		x.order = append(x.order, k)
	}
	x.known[k] = e.Code
	if len(x.order) > maxKnown {
		delete(x.known, x.order[0])
		x.order = append([]exitKey(nil), x.order[1:]...)
	}
	for _, k := range []exitKey{k, {pid: e.Pid}} {
		if ch := x.waiting[k]; ch != nil {
			close(ch)
			delete(x.waiting, k)
		}
	}
}

// waitSince returns the exit code of the process with that number which started
// then or later, as soon as it is known.
func (x *exitTable) waitSince(pid int, since uint64, patience time.Duration) (int, bool) {
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		x.mu.Lock()
		for k, code := range x.known {
			if k.pid == pid && k.start >= since {
				x.mu.Unlock()
				return code, true
			}
		}
		any := exitKey{pid: pid}
		ch := x.waiting[any]
		if ch == nil {
			ch = make(chan struct{})
			x.waiting[any] = ch
		}
		x.mu.Unlock()
		select {
		case <-ch:
		case <-t.C:
			return unknownCode, false
		}
	}
}

func (x *exitTable) wait(pid int, start uint64, patience time.Duration) (int, bool) {
	return x.waitOr(pid, start, patience, nil)
}

// waitOr returns the exit code as soon as it is known, or gives up.
func (x *exitTable) waitOr(pid int, start uint64, patience time.Duration, giveUp <-chan struct{}) (int, bool) {
	k := exitKey{pid, start}
	x.mu.Lock()
	code, ok := x.known[k]
	if ok || patience <= 0 {
		x.mu.Unlock()
		if !ok {
			code = unknownCode
		}
		return code, ok
	}
	ch := x.waiting[k]
	if ch == nil {
		ch = make(chan struct{})
		x.waiting[k] = ch
	}
	x.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-ch:
	case <-giveUp:
	case <-t.C:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	code, ok = x.known[k]
	return code, ok
}
