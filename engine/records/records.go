// Package records keeps what outlives the daemon of containers in its journaled
// state: specs, statuses, and what creations under way make.
package records

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

// Store is the journaled state; internal/state implements it.
type Store interface {
	Batch(ops ...state.Op) error
	BatchDurable(ops ...state.Op) error
	ForEach(bucket string, fn func(key string, val []byte) error) error
}

// Records are the records of all containers.
type Records struct {
	Store Store
}

// Version is that of Spec and Status on disk.
const Version = 1

// Load gives all containers to add, in no order.
func (r Records) Load(add func(*container.Spec, *container.Status)) error {
	statuses := map[string]*container.Status{}
	err := r.Store.ForEach(statusBucket, func(key string, val []byte) error {
		var st container.Status
		if err := json.Unmarshal(val, &st); err != nil {
			return fmt.Errorf("status of container %s: %w", key, err)
		}
		statuses[key] = &st
		return nil
	})
	if err != nil {
		return err
	}
	return r.Store.ForEach(specBucket, func(key string, val []byte) error {
		var s container.Spec
		if err := json.Unmarshal(val, &s); err != nil {
			return fmt.Errorf("container %s: %w", key, err)
		}
		if s.Version > Version {
			return fmt.Errorf("container %s has format version %d, this engine knows %d", key, s.Version, Version)
		}
		st := statuses[key]
		if st == nil {
			st = &container.Status{Version: Version, State: container.StateCreated}
		}
		add(&s, st)
		return nil
	})
}

// Add saves a new container, durably unless it is removed on exit, and settles its
// creation.
func (r Records) Add(s *container.Spec, st *container.Status) error {
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
		return r.Store.Batch(ops...)
	}
	return r.Store.BatchDurable(ops...)
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

// Intend records the anonymous volumes of a creation before any is made. Its undo
// is Settle.
func (r Records) Intend(s *container.Spec) (undo func() error, err error) {
	names := anonymousVolumes(s)
	if len(names) == 0 {
		return func() error { return nil }, nil
	}
	val, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	return func() error { return r.Settle(s.ID) },
		r.Store.Batch(state.Op{Bucket: intentBucket, Key: string(s.ID), Value: val})
}

// Intents returns the anonymous volumes of creations that were interrupted.
func (r Records) Intents() (map[container.ID][]string, error) {
	out := map[container.ID][]string{}
	err := r.Store.ForEach(intentBucket, func(key string, val []byte) error {
		var names []string
		if err := json.Unmarshal(val, &names); err != nil {
			return fmt.Errorf("creation of container %s: %w", key, err)
		}
		out[container.ID(key)] = names
		return nil
	})
	return out, err
}

// Settle ends the record of a creation.
func (r Records) Settle(id container.ID) error {
	return r.Store.Batch(state.Op{Bucket: intentBucket, Key: string(id), Delete: true})
}

// PutSpec replaces a spec.
func (r Records) PutSpec(s *container.Spec) error {
	op, err := specOp(s)
	if err != nil {
		return err
	}
	return r.Store.BatchDurable(op)
}

// PutStatus replaces a status.
func (r Records) PutStatus(id container.ID, st *container.Status) error {
	op, err := statusOp(id, st)
	if err != nil {
		return err
	}
	return r.Store.Batch(op)
}

func specOp(s *container.Spec) (state.Op, error) {
	val, err := json.Marshal(s)
	return state.Op{Bucket: specBucket, Key: string(s.ID), Value: val}, err
}

func statusOp(id container.ID, st *container.Status) (state.Op, error) {
	val, err := json.Marshal(st)
	return state.Op{Bucket: statusBucket, Key: string(id), Value: val}, err
}

// Delete forgets a container.
func (r Records) Delete(id container.ID) error {
	return r.Store.Batch(
		state.Op{Bucket: specBucket, Key: string(id), Delete: true},
		state.Op{Bucket: statusBucket, Key: string(id), Delete: true},
	)
}
