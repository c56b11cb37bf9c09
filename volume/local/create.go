package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"
)

// anonymousLabel marks a volume whose name nobody chose.
const anonymousLabel = "com.docker.volume.anonymous"

// Create implements volume.Store.
func (s *Store) Create(_ context.Context, req apivolume.CreateRequest) (apivolume.Volume, error) {
	var none apivolume.Volume
	r := record{Version: recordVersion, Name: req.Name, Created: time.Now(), Labels: maps.Clone(req.Labels), Options: maps.Clone(req.DriverOpts)}
	if r.Name == "" {
		r.Name = randomName()
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[anonymousLabel] = ""
	}
	if req.Driver != "" && req.Driver != DriverName {
		return none, fmt.Errorf("create %s: error looking up volume plugin %s: plugin %q not found: %w", r.Name, req.Driver, req.Driver, errdefs.ErrNotFound)
	}
	if err := checkName(r.Name); err != nil {
		return none, err
	}
	if _, err := parseMount(r.Options); err != nil {
		return none, fmt.Errorf("create %s: %w", r.Name, err)
	}
	v, isNew, err := s.insert(r)
	if isNew {
		s.publish(apievents.ActionCreate, r.Name)
	}
	return v, err
}

func (s *Store) insert(r record) (v apivolume.Volume, isNew bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.volumes[r.Name]; e != nil {
		if e.Removing {
			return v, false, fmt.Errorf("create %s: volume is being removed: %w", r.Name, errdefs.ErrConflict)
		}
		return s.describe(e), false, nil
	}
	// The record comes first: a start after a kill makes the directory.
	if err := s.save(r); err != nil {
		return v, false, fmt.Errorf("create %s: %w", r.Name, err)
	}
	if err := s.makeDir(r.Name); err != nil {
		return v, false, fmt.Errorf("create %s: %w", r.Name, errors.Join(err, s.state.Delete(bucket, r.Name)))
	}
	e := newEntry(r)
	s.volumes[r.Name] = e
	return s.describe(e), true, nil
}

func newEntry(r record) *entry {
	return &entry{record: r, users: map[string]int{}, mounts: map[string]int{}}
}

func (s *Store) makeDir(name string) error {
	if err := os.MkdirAll(filepath.Join(s.dir, name), 0o701); err != nil {
		return err
	}
	err := os.Mkdir(s.path(name), 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(s.path(name), 0o755) // whatever the umask is
}

func randomName() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// checkName admits letters, digits, '_', '.' and '-', beginning with a letter or digit.
func checkName(name string) error {
	if len(name) == 1 {
		return fmt.Errorf("create %s: volume name is too short, names should be at least two alphanumeric characters: %w", name, errdefs.ErrInvalidArgument)
	}
	for i, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return fmt.Errorf("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path: %w", name, name, errdefs.ErrInvalidArgument)
		}
	}
	if len(name) > 255 {
		return fmt.Errorf("create %.40s…: volume name is longer than 255 bytes: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}
