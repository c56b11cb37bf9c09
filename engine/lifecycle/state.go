package lifecycle

import (
	"encoding/json"
	"fmt"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/internal/state"
)

// Buckets of the state store, keyed by container ID.
const (
	specBucket   = "containers.spec"
	statusBucket = "containers.status"
	// intentBucket holds what a creation under way makes that nothing else
	// would tell from a user's: its anonymous volumes.
	intentBucket = "containers.creating"
)

// formatVersion is that of Spec and Status on disk.
const formatVersion = 1

// load fills the index from the store.
func (e *Engine) load() error {
	e.index.units = make(map[container.ID]*unit)
	e.index.names = make(map[string]container.ID)
	err := e.o.State.ForEach(specBucket, func(key string, val []byte) error {
		var s container.Spec
		if err := json.Unmarshal(val, &s); err != nil {
			return fmt.Errorf("container %s: %w", key, err)
		}
		if s.Version > formatVersion {
			return fmt.Errorf("container %s has format version %d, this engine knows %d", key, s.Version, formatVersion)
		}
		u := &unit{id: s.ID}
		u.spec.Store(&s)
		u.status.Store(&container.Status{Version: formatVersion, State: container.StateCreated})
		e.index.units[s.ID] = u
		e.index.names[s.Name] = s.ID
		return nil
	})
	if err != nil {
		return err
	}
	return e.o.State.ForEach(statusBucket, func(key string, val []byte) error {
		u := e.index.units[container.ID(key)]
		if u == nil {
			return nil
		}
		var st container.Status
		if err := json.Unmarshal(val, &st); err != nil {
			return fmt.Errorf("status of container %s: %w", key, err)
		}
		u.status.Store(&st)
		return nil
	})
}

// saveNew persists a new container: durably, unless it is removed on exit.
func (e *Engine) saveNew(s *container.Spec, st *container.Status) error {
	spec, err := specOp(s)
	if err != nil {
		return err
	}
	status, err := statusOp(s.ID, st)
	if err != nil {
		return err
	}
	ops := []state.Op{spec, status}
	if len(anonymousVolumes(s)) > 0 {
		ops = append(ops, state.Op{Bucket: intentBucket, Key: string(s.ID), Delete: true})
	}
	if s.HostConfig.AutoRemove {
		return e.o.State.Batch(ops...)
	}
	return e.o.State.BatchDurable(ops...)
}

// anonymousVolumes are the volumes that are made for this container alone.
func anonymousVolumes(s *container.Spec) (names []string) {
	for _, m := range s.Mounts {
		if m.Anonymous && m.Name != "" {
			names = append(names, m.Name)
		}
	}
	return names
}

// intend records the anonymous volumes of a creation before any is made.
func (e *Engine) intend(s *container.Spec) (undo func() error, err error) {
	names := anonymousVolumes(s)
	if len(names) == 0 {
		return func() error { return nil }, nil
	}
	val, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	op := state.Op{Bucket: intentBucket, Key: string(s.ID), Value: val}
	return func() error {
		return e.o.State.Batch(state.Op{Bucket: op.Bucket, Key: op.Key, Delete: true})
	}, e.o.State.Batch(op)
}

// intents returns the anonymous volumes of creations that were interrupted.
func (e *Engine) intents() (map[container.ID][]string, error) {
	out := map[container.ID][]string{}
	err := e.o.State.ForEach(intentBucket, func(key string, val []byte) error {
		var names []string
		if err := json.Unmarshal(val, &names); err != nil {
			return fmt.Errorf("creation of container %s: %w", key, err)
		}
		out[container.ID(key)] = names
		return nil
	})
	return out, err
}

func specOp(s *container.Spec) (state.Op, error) {
	val, err := json.Marshal(s)
	return state.Op{Bucket: specBucket, Key: string(s.ID), Value: val}, err
}

func statusOp(id container.ID, st *container.Status) (state.Op, error) {
	val, err := json.Marshal(st)
	return state.Op{Bucket: statusBucket, Key: string(id), Value: val}, err
}

// setSpec replaces the spec. The caller owns u.
func (e *Engine) setSpec(u *unit, change func(*container.Spec)) error {
	if u.isGone() { // whoever waited for the owner meanwhile must not bring it back
		return notFound(string(u.id))
	}
	s := *u.spec.Load()
	change(&s)
	op, err := specOp(&s)
	if err != nil {
		return err
	}
	if err := e.o.State.BatchDurable(op); err != nil {
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
	op, err := statusOp(u.id, &st)
	if err == nil {
		err = e.o.State.Batch(op)
	}
	if err != nil {
		return fmt.Errorf("save status of container %s: %w", u.id.Short(), err)
	}
	return nil
}

// forget deletes the container from the store.
func (e *Engine) forget(id container.ID) error {
	return e.o.State.Batch(
		state.Op{Bucket: specBucket, Key: string(id), Delete: true},
		state.Op{Bucket: statusBucket, Key: string(id), Delete: true},
	)
}
