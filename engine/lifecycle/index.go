package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/container"
)

// index finds containers by ID, name and unambiguous prefix of the ID.
type index struct {
	mu    sync.RWMutex
	units map[container.ID]*unit
	names map[string]container.ID // reserved ones too
}

func conflict(format string, args ...any) error {
	return errdefs.ErrConflict.WithMessage(fmt.Sprintf(format, args...))
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func notFound(ref string) error {
	return errdefs.ErrNotFound.WithMessage("No such container: " + ref)
}

// find returns the container a user means. NotFound, InvalidArgument (ambiguous).
func (x *index) find(ref string) (*unit, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if u := x.units[container.ID(ref)]; u != nil {
		return u, nil
	}
	if ref == "" {
		return nil, invalid("invalid container name or ID: value is empty")
	}
	if u := x.units[x.names[strings.TrimPrefix(ref, "/")]]; u != nil {
		return u, nil
	}
	if strings.Trim(ref, "0123456789abcdef") != "" {
		return nil, notFound(ref)
	}
	var found *unit
	for id, u := range x.units {
		if !strings.HasPrefix(string(id), ref) {
			continue
		}
		if found != nil {
			return nil, invalid("multiple IDs found with provided prefix: %s", ref)
		}
		found = u
	}
	if found == nil {
		return nil, notFound(ref)
	}
	return found, nil
}

// reserve takes a name for an ID. AlreadyExists.
func (x *index) reserve(name string, id container.ID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if have, ok := x.names[name]; ok && have != id {
		return conflict("Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, string(have))
	}
	x.names[name] = id
	return nil
}

func (x *index) release(name string, id container.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == id {
		delete(x.names, name)
	}
}

func (x *index) add(u *unit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.units[u.id] = u
}

func (x *index) remove(u *unit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.units, u.id)
	if x.names[u.name()] == u.id {
		delete(x.names, u.name())
	}
}

// get returns the container of exactly this ID, or nil.
func (x *index) get(id container.ID) *unit {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.units[id]
}

// all returns the containers, newest first.
func (x *index) all() []*unit {
	x.mu.RLock()
	out := make([]*unit, 0, len(x.units))
	for _, u := range x.units {
		out = append(out, u)
	}
	x.mu.RUnlock()
	slices.SortFunc(out, func(a, b *unit) int {
		if c := b.spec.Load().Created.Compare(a.spec.Load().Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	return out
}
