package bridge

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/conntrack"
	"github.com/wherry-engine/wherry/network/nft"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// background is work whose end nobody waits for: links that go, connections
// whose translation is out of date. Its queues are bounded: who fills them waits.
type background struct {
	nl    *rtnl.Conn
	log   *slog.Logger
	group uint32 // of links that are to go

	jobs  chan func()
	links chan string
	wg    sync.WaitGroup

	mu     sync.RWMutex
	closed bool
}

const (
	// maxJobs bounds the queues.
	maxJobs = 512
	// gather is how long links are collected: the kernel stops for some 20 ms
	// to remove one, or many at once. Most are gone by then with their namespace.
	gather = 250 * time.Millisecond
)

func newBackground(nl *rtnl.Conn, log *slog.Logger, group uint32) *background {
	b := &background{nl: nl, log: log, group: group, jobs: make(chan func(), maxJobs), links: make(chan string, maxJobs)}
	b.wg.Add(2)
	go func() {
		defer b.wg.Done()
		for job := range b.jobs {
			job()
		}
	}()
	go b.sweepLinks()
	return b
}

// close waits for what is queued. What comes later is left to the next daemon.
func (b *background) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.jobs)
		close(b.links)
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// remove deletes links, later.
func (b *background) remove(names ...string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, name := range names {
		if b.closed {
			return
		}
		b.links <- name
	}
}

// sweepLinks deletes links in bunches.
func (b *background) sweepLinks() {
	defer b.wg.Done()
	for name := range b.links {
		names := []string{name}
		late := time.After(gather)
		for more := true; more && len(names) < maxJobs; {
			select {
			case n, ok := <-b.links:
				if more = ok; ok {
					names = append(names, n)
				}
			case <-late:
				more = false
			}
		}
		if err := b.removeAll(names); err != nil {
			b.log.Warn("cannot remove links", "err", err)
		}
	}
}

func (b *background) removeAll(names []string) error {
	var mark, del rtnl.Batch
	for _, n := range names {
		mark.SetGroup(n, b.group)
	}
	if err := b.nl.Do(&mark); err != nil && !onlyGone(err) {
		return err
	}
	del.DelGroup(b.group)
	if err := b.nl.Do(&del); err != nil && !onlyGone(err) {
		return err
	}
	return nil
}

// onlyGone reports whether nothing failed but that links were gone.
func onlyGone(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(many.Unwrap(), func(e error) bool { return !onlyGone(e) })
	}
	return errors.Is(err, unix.ENODEV)
}

// removeNow deletes a link; one that is gone is no error.
func (b *background) removeNow(name string) error {
	if name == "" {
		return nil
	}
	var batch rtnl.Batch
	batch.DelLinkByName(name)
	if err := b.nl.Do(&batch); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// forgetFlows makes the kernel forget UDP flows to ports whose translation
// changed; a peer that goes on sending would keep the old one alive for ever.
func (b *background) forgetFlows(list []nft.Port) {
	var flows []conntrack.Flow
	for _, p := range list {
		if p.Proto == unix.IPPROTO_UDP {
			flows = append(flows, conntrack.Flow{Proto: p.Proto, Port: p.Host.Port(), V6: p.Host.Addr().Is6()})
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(flows) == 0 || b.closed {
		return
	}
	b.jobs <- func() {
		if err := conntrack.Forget(flows); err != nil {
			b.log.Warn("cannot forget old UDP flows", "err", err)
		}
	}
}
