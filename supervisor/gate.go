package supervisor

import (
	"sync"
	"sync/atomic"
	"time"
)

// gate lets come to its end what must not be cut in two by an upgrade: the
// reading of output, the noting of an exit, a request. The nil gate is open.
type gate struct {
	shut atomic.Bool

	mu      sync.Mutex
	in      int
	changed chan struct{} // closed when in falls to 0, or when the gate opens
}

// enter waits while the gate is shut. Whoever entered calls leave.
func (g *gate) enter() {
	if g == nil {
		return
	}
	for {
		g.mu.Lock()
		if !g.shut.Load() {
			g.in++
			g.mu.Unlock()
			return
		}
		ch := g.wakeLocked()
		g.mu.Unlock()
		<-ch
	}
}

// try enters if the gate is open, or if it must be let in because one who is in
// waits for it.
func (g *gate) try(must bool) bool {
	if g == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut.Load() && !must {
		return false
	}
	g.in++
	return true
}

// closing tells those who are in that they should leave soon.
func (g *gate) closing() bool { return g != nil && g.shut.Load() }

func (g *gate) leave() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in--; g.in == 0 {
		g.signalLocked()
	}
}

func (g *gate) wakeLocked() chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

func (g *gate) signalLocked() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// close shuts the gate and waits until nobody is in. False if that lasts too
// long; the gate stays shut.
func (g *gate) close(patience time.Duration) bool {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		g.mu.Lock()
		g.shut.Store(true)
		if g.in == 0 {
			g.mu.Unlock()
			return true
		}
		ch := g.wakeLocked()
		g.mu.Unlock()
		select {
		case <-ch:
		case <-late.C:
			return false
		}
	}
}

// open lets everybody in again.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut.Store(false)
	g.signalLocked()
}
