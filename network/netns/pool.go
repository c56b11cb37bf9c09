package netns

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/network/rtnl"
)

// errLost means that a thread could not return from a namespace.
var errLost = errors.New("cannot return to the host's network namespace")

// PoolOptions configure a Pool.
type PoolOptions struct {
	// Size is the number of namespaces kept ready; 0 makes each on demand.
	Size int
	// Sysctls are written in each namespace; those the kernel lacks are skipped.
	Sysctls map[string]string
	// Alias marks the veth ends in the host as the daemon's.
	Alias string
	// MTU of the veth pairs; 0 is the kernel's default.
	MTU    int
	Logger *slog.Logger
}

// Pool keeps namespaces ready. One goroutine on a thread of its own makes
// them, another gives them up: the kernel takes milliseconds to end one.
type Pool struct {
	o    PoolOptions
	host *rtnl.Conn

	ready  chan *NS
	wanted chan order // takers that found none ready
	taken  chan struct{}
	trash  chan *NS
	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

type made struct {
	ns  *NS
	err error
}

type order struct {
	bare bool
	ch   chan made
}

// calm is how long nothing must have been taken before the pool is topped up.
const calm = 25 * time.Millisecond

// trashSize bounds the namespaces that wait to be given up.
const trashSize = 256

// NewPool starts making namespaces.
func NewPool(o PoolOptions) (*Pool, error) {
	host, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	p := &Pool{
		o: o, host: host, ready: make(chan *NS, max(o.Size, 1)), wanted: make(chan order), taken: make(chan struct{}, 1),
		trash: make(chan *NS, trashSize), stop: make(chan struct{}),
	}
	p.wg.Add(2)
	go p.fill()
	go p.sweep()
	return p, nil
}

// Take returns a namespace, the caller's from now on. Unavailable after Close.
func (p *Pool) Take(ctx context.Context) (*NS, error) {
	select {
	case p.taken <- struct{}{}:
	default:
	}
	select {
	case ns := <-p.ready:
		return ns, nil
	default:
	}
	want := order{ch: make(chan made, 1)}
	select {
	case ns := <-p.ready:
		return ns, nil
	case p.wanted <- want:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.stop:
		return nil, errClosed()
	}
	m := <-want.ch // fill answers what it accepted
	return m.ns, m.err
}

// Ready is the number of namespaces that wait to be taken.
func (p *Pool) Ready() int { return len(p.ready) }

// Bare returns a namespace that has nothing but loopback.
func (p *Pool) Bare(ctx context.Context) (*NS, error) {
	want := order{bare: true, ch: make(chan made, 1)}
	select {
	case p.wanted <- want:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.stop:
		return nil, errClosed()
	}
	m := <-want.ch
	return m.ns, m.err
}

func errClosed() error { return errdefs.ErrUnavailable.WithMessage("the network is shut down") }

// Discard gives a namespace up, later. It blocks only when very many wait.
func (p *Pool) Discard(ns *NS) {
	select {
	case p.trash <- ns:
	case <-p.stop:
		p.giveUp(ns)
	}
}

// fill makes namespaces until the pool is closed. It holds one more than the
// channel does, so that it wakes when one is taken.
func (p *Pool) fill() {
	defer p.wg.Done()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	home, err := Open()
	if err != nil {
		p.o.Logger.Error("network namespaces cannot be made", "err", err)
		return
	}
	defer home.Close()
	for p.o.Size > 0 {
		if !p.calm(home) {
			return
		}
		ns, err := p.make(home, false)
		if err != nil {
			p.o.Logger.Warn("cannot prepare a network namespace", "err", err)
			if p.lost(err) || !p.serve(home) { // the next taker sees the error
				return
			}
			continue
		}
		if !p.offer(ns, home) {
			return
		}
	}
	for p.serve(home) {
	}
}

// calm waits, while the pool is half full at least, until nothing was taken for
// a moment: making a namespace would slow down the start that needed one.
// False: this thread is done.
func (p *Pool) calm(home *os.File) bool {
	t := time.NewTimer(calm)
	defer t.Stop()
	for len(p.ready) > p.o.Size/2 {
		select {
		case <-p.taken:
			t.Reset(calm)
		case want := <-p.wanted:
			ns, err := p.make(home, want.bare)
			want.ch <- made{ns, err}
			if p.lost(err) {
				return false
			}
		case <-t.C:
			return true
		case <-p.stop:
			return false
		}
	}
	return true
}

// offer waits until a namespace is taken. False: this thread is done.
func (p *Pool) offer(ns *NS, home *os.File) bool {
	for {
		select {
		case p.ready <- ns:
			return true
		case want := <-p.wanted:
			if !want.bare {
				want.ch <- made{ns: ns}
				return true
			}
			bare, err := p.make(home, true)
			want.ch <- made{bare, err}
			if p.lost(err) {
				p.Discard(ns)
				return false
			}
		case <-p.stop:
			p.Discard(ns)
			return false
		}
	}
}

// serve makes one namespace for the next taker that waits. False: this thread is done.
func (p *Pool) serve(home *os.File) bool {
	select {
	case want := <-p.wanted:
		ns, err := p.make(home, want.bare)
		want.ch <- made{ns, err}
		return !p.lost(err)
	case <-p.stop:
		return false
	}
}

// lost continues on a new thread if this one cannot return to the host.
func (p *Pool) lost(err error) bool {
	if !errors.Is(err, errLost) {
		return false
	}
	p.wg.Add(1)
	go p.fill()
	return true
}

// sweep gives up namespaces.
func (p *Pool) sweep() {
	defer p.wg.Done()
	for {
		select {
		case ns := <-p.trash:
			p.giveUp(ns)
		case <-p.stop:
			return
		}
	}
}

func (p *Pool) giveUp(ns *NS) {
	var b rtnl.Batch
	b.DelLink(ns.HostIndex)
	if err := errors.Join(p.host.Do(&b), ns.Close()); err != nil {
		p.o.Logger.Debug("give up a network namespace", "veth", ns.Host, "err", err)
	}
}

// Close gives up all namespaces that were not taken, and waits until they are.
func (p *Pool) Close() error {
	p.once.Do(func() { close(p.stop) })
	p.wg.Wait()
	for {
		select {
		case ns := <-p.ready:
			p.giveUp(ns)
		case ns := <-p.trash:
			p.giveUp(ns)
		default:
			return p.host.Close()
		}
	}
}
