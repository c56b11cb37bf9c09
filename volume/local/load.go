package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/internal/rmtree"
)

func (s *Store) load() error {
	var removing []string
	err := s.state.ForEach(bucket, func(name string, val []byte) error {
		var r record
		if err := json.Unmarshal(val, &r); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
		if r.Version > recordVersion {
			return fmt.Errorf("volume %s has record version %d, this engine knows versions up to %d: %w", name, r.Version, recordVersion, errdefs.ErrFailedPrecondition)
		}
		s.volumes[name] = newEntry(r)
		if r.Removing {
			removing = append(removing, name)
			return nil
		}
		return s.makeDir(name)
	})
	if err != nil {
		return err
	}
	for _, name := range removing {
		if err := s.erase(name); err != nil {
			s.log.Error("finish removal of volume", "volume", name, "err", err)
		}
	}
	return s.scan()
}

// scan empties the trash and adopts directories that look like volumes.
func (s *Store) scan() error {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		switch {
		case strings.HasPrefix(d.Name(), trashPrefix):
			if err := rmtree.Remove(filepath.Join(s.dir, d.Name())); err != nil {
				s.log.Warn("remove files of a removed volume", "dir", d.Name(), "err", err)
			}
		case d.IsDir() && s.volumes[d.Name()] == nil && checkName(d.Name()) == nil:
			if err := s.adopt(d.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) adopt(name string) error {
	fi, err := os.Lstat(s.path(name))
	if errors.Is(err, os.ErrNotExist) || err == nil && !fi.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	r := record{Version: recordVersion, Name: name, Created: fi.ModTime(), Populated: true}
	if err := s.save(r); err != nil {
		return fmt.Errorf("adopt volume %s: %w", name, err)
	}
	s.volumes[name] = newEntry(r)
	s.log.Warn("adopted a directory without a record as a volume", "volume", name)
	return nil
}
