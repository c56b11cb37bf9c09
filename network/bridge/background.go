package bridge

import (
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/conntrack"
	"github.com/wherry-engine/wherry/network/nft"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// background is work whose end nobody waits for: links that go, connections
// whose translation is out of date. Its queue is bounded: who fills it waits.
type background struct {
	nl  *rtnl.Conn
	log *slog.Logger

	jobs chan func()
	done chan struct{}
	once sync.Once
}

// maxJobs bounds the queue.
const maxJobs = 256

func newBackground(nl *rtnl.Conn, log *slog.Logger) *background {
	b := &background{nl: nl, log: log, jobs: make(chan func(), maxJobs), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		for job := range b.jobs {
			job()
		}
	}()
	return b
}

// close waits for what is queued. Nothing may be queued afterwards.
func (b *background) close() {
	b.once.Do(func() { close(b.jobs) })
	<-b.done
}

// remove deletes links, later.
func (b *background) remove(names ...string) {
	if len(names) == 0 {
		return
	}
	b.jobs <- func() {
		for _, name := range names {
			if err := b.removeNow(name); err != nil {
				b.log.Warn("cannot remove a link", "link", name, "err", err)
			}
		}
	}
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
	if len(flows) == 0 {
		return
	}
	b.jobs <- func() {
		if err := conntrack.Forget(flows); err != nil {
			b.log.Warn("cannot forget old UDP flows", "err", err)
		}
	}
}
