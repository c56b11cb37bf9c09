package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/internal/rmtree"
)

// Delete implements volume.Store.
func (s *Store) Delete(_ context.Context, name string, force bool) error {
	e, err := s.beginRemoval(name)
	if errdefs.IsNotFound(err) && force {
		return nil
	}
	if err != nil {
		return err
	}
	e.mounting.Lock()
	defer e.mounting.Unlock()
	if err := s.erase(name); err != nil {
		s.log.Error("remove volume", "volume", name, "err", err)
		return fmt.Errorf("remove %s: %w", name, err)
	}
	s.publish(apievents.ActionDestroy, name)
	return nil
}

// beginRemoval marks a volume that nobody uses, for good.
func (s *Store) beginRemoval(name string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.volumes[name]
	if e == nil {
		return nil, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	}
	if len(e.users) > 0 {
		return nil, fmt.Errorf("remove %s: volume is in use - [%s]: %w", name, strings.Join(e.userIDs(), ", "), errdefs.ErrFailedPrecondition)
	}
	// A removal that failed may be asked for again.
	r := e.record
	r.Removing = true
	if err := s.save(r); err != nil {
		return nil, fmt.Errorf("remove %s: %w", name, err)
	}
	e.Removing = true
	return e, nil
}

// erase deletes what a volume has on disk, then its record.
func (s *Store) erase(name string) error {
	if err := unmountAll(s.path(name)); err != nil {
		return err
	}
	trash := filepath.Join(s.dir, trashPrefix+randomName())
	err := os.Rename(filepath.Join(s.dir, name), trash)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// From here on the name is free; what is left in the trash goes at the next start.
	if err := s.state.Delete(bucket, name); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.volumes, name)
	s.mu.Unlock()
	if err := rmtree.Remove(trash); err != nil {
		s.log.Warn("volume is removed, but some of its files are left", "dir", trash, "err", err)
	}
	return nil
}
