package lifecycle

import (
	"fmt"

	"github.com/wherry-engine/wherry/container"
)

// load fills the index from the records.
func (e *Engine) load() error {
	e.index.units = make(map[container.ID]*unit)
	e.index.names = make(map[string]container.ID)
	return e.records.Load(func(s *container.Spec, st *container.Status) {
		u := newUnit(s, st)
		e.index.units[u.id] = u
		e.index.names[s.Name] = u.id
	})
}

// setSpec replaces the spec. The caller owns u.
func (e *Engine) setSpec(u *unit, change func(*container.Spec)) error {
	if u.isGone() { // whoever waited for the owner meanwhile must not bring it back
		return notFound(string(u.id))
	}
	s := *u.spec.Load()
	change(&s)
	if err := e.records.PutSpec(&s); err != nil {
		return fmt.Errorf("save container %s: %w", u.id.Short(), err)
	}
	u.spec.Store(&s)
	return nil
}

// setStatus replaces the status. The caller owns u. A disk that cannot take it
// does not stop the engine from knowing it.
func (e *Engine) setStatus(u *unit, change func(*container.Status)) error {
	st := *u.status.Load()
	change(&st)
	u.status.Store(&st)
	if u.isGone() {
		return nil
	}
	if err := e.records.PutStatus(u.id, &st); err != nil {
		return fmt.Errorf("save status of container %s: %w", u.id.Short(), err)
	}
	return nil
}
