// Package local keeps volumes of the driver "local": directories below the data
// root, or file systems that are mounted there while containers use them. It
// owns the directory it is given and the bucket "volumes" of the engine's state.
package local

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/volume"
)

// DriverName is the name under which these volumes go.
const DriverName = "local"

const (
	bucket        = "volumes"
	recordVersion = 1
	dataDir       = "_data"
	trashPrefix   = ".removing-"
)

// State is the part of the engine's state that is needed; internal/state implements it.
type State interface {
	Put(bucket, key string, val []byte) error
	Delete(bucket, key string) error
	ForEach(bucket string, fn func(key string, val []byte) error) error
}

// Options for Open.
type Options struct {
	// Dir holds one directory per volume. It is made if it is missing.
	Dir string
	// State holds the records. Required.
	State State
	// Events receives create and destroy; nil drops them.
	Events events.Publisher
	// Logger may be nil.
	Logger *slog.Logger
}

// record is what is persisted of a volume.
type record struct {
	Version   int               `json:"version"`
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Populated bool              `json:"populated,omitempty"`
	// Removing is set before anything is deleted, so that a start after a kill finishes it.
	Removing bool `json:"removing,omitempty"`
}

// entry is a volume. mounting serialises mount(2) and umount(2) of it.
type entry struct {
	record                  // under Store.mu
	users    map[string]int // references by container; under Store.mu
	mounts   map[string]int // uses by container; under mounting
	mounting sync.Mutex
}

// Store implements volume.Store.
type Store struct {
	dir    string
	state  State
	events events.Publisher
	log    *slog.Logger

	mu      sync.Mutex
	volumes map[string]*entry
}

var _ volume.Store = (*Store)(nil)

// Open loads the volumes, finishes removals that were cut short, and adopts
// directories that have no record.
func Open(opts Options) (*Store, error) {
	s := &Store{dir: opts.Dir, state: opts.State, events: opts.Events, log: opts.Logger, volumes: map[string]*entry{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(s.dir, 0o701); err != nil {
		return nil, fmt.Errorf("make volumes directory: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("load volumes: %w", err)
	}
	return s, nil
}

func (s *Store) publish(action apievents.Action, name string) {
	if s.events != nil {
		s.events.Publish(apievents.VolumeEventType, action, name, map[string]string{"driver": DriverName})
	}
}

// path is the directory of a volume's data.
func (s *Store) path(name string) string { return filepath.Join(s.dir, name, dataDir) }

func (s *Store) save(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.state.Put(bucket, r.Name, data)
}

func (s *Store) describe(e *entry) apivolume.Volume {
	v := apivolume.Volume{
		Name: e.Name, Driver: DriverName, Mountpoint: s.path(e.Name), Scope: "local",
		CreatedAt: e.Created.Format(time.RFC3339), Labels: e.Labels, Options: e.Options,
	}
	return v
}

// find returns an entry that is not being removed. mu is held.
func (s *Store) find(name string) (*entry, error) {
	e := s.volumes[name]
	if e == nil || e.Removing {
		return nil, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	}
	return e, nil
}

// Get implements volume.Store.
func (s *Store) Get(_ context.Context, name string) (apivolume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return apivolume.Volume{}, err
	}
	return s.describe(e), nil
}

// List implements volume.Store; the order is that of names.
func (s *Store) List(context.Context) ([]apivolume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]apivolume.Volume, 0, len(s.volumes))
	for _, e := range s.volumes {
		if !e.Removing {
			all = append(all, s.describe(e))
		}
	}
	slices.SortFunc(all, func(a, b apivolume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Reference implements volume.Store.
func (s *Store) Reference(_ context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return err
	}
	e.users[containerID]++
	return nil
}

// Release implements volume.Store. What is not referenced is no error.
func (s *Store) Release(_ context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.volumes[name]
	if e == nil {
		return nil
	}
	if e.users[containerID]--; e.users[containerID] <= 0 {
		delete(e.users, containerID)
	}
	return nil
}

// Users implements volume.Store.
func (s *Store) Users(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.volumes[name]; e != nil {
		return e.userIDs()
	}
	return nil
}

// userIDs lists who references the volume. The store's mu is held.
func (e *entry) userIDs() []string {
	ids := make([]string, 0, len(e.users))
	for id := range e.users {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
