package store

import (
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/image"
)

// progressStep is the least time between two numbers of one layer.
const progressStep = 100 * time.Millisecond

// sink makes an image.Progress safe to use when it is nil.
type sink struct{ p image.Progress }

func (s sink) status(id, msg string) {
	if s.p != nil {
		s.p.Status(id, msg)
	}
}

func (s sink) update(id, action string, current, total int64) {
	if s.p != nil {
		s.p.Update(id, action, current, total)
	}
}

func (s sink) aux(v any) {
	if s.p != nil {
		s.p.Aux(v)
	}
}

// meter reports how far one layer is, not more often than people can read.
type meter struct {
	sink
	id, action string
	total      int64
	last       atomic.Int64
}

func (m *meter) at(n int64) {
	now := time.Now().UnixNano()
	last := m.last.Load()
	if n < m.total && now-last < int64(progressStep) || !m.last.CompareAndSwap(last, now) {
		return
	}
	m.update(m.id, m.action, n, m.total)
}

// short is the name of a blob in progress messages.
func short(d digest.Digest) string {
	e := d.Encoded()
	if len(e) > 12 {
		return e[:12]
	}
	return e
}
