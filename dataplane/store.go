package dataplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/dataplane/wire"
	"github.com/wherry-engine/wherry/keeper/fdstore"
)

// Names of descriptors in the keeper's sets.
const (
	keyUDP  = "dns-udp"
	keyTCP  = "dns-tcp"
	keyPort = "tcp "
	// setFiles is the number of descriptors in one set.
	setFiles = 32
	// stateVersion of those files.
	stateVersion = 1
)

// store is where a next helper finds what this one had: descriptors in the
// keeper, the rest in files.
type store struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	keeper *fdstore.Client // nil without a keeper (tests)
	sets   map[string]int  // how many sets each sandbox has in the keeper
}

// record is the content of a state file.
type record struct {
	Version int          `json:"version"`
	Sandbox wire.Sandbox `json:"sandbox"`
}

func openStore(execRoot string, log *slog.Logger) (*store, error) {
	st := &store{dir: filepath.Join(execRoot, wire.StateDir), log: log, sets: map[string]int{}}
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return nil, err
	}
	k, err := fdstore.Dial(execRoot, "net", nil)
	if err != nil {
		log.Warn("no keeper: what this process holds ends with it", "err", err)
		return st, nil
	}
	st.keeper = k
	return st, nil
}

// keep remembers a duplicate of a descriptor for the keeper.
func (sb *sandbox) keep(name string, fd int) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	sb.unkeep(name)
	sb.kept[name] = dup
}

func (sb *sandbox) unkeep(name string) {
	if fd, ok := sb.kept[name]; ok {
		_ = unix.Close(fd)
		delete(sb.kept, name)
	}
}

func (sb *sandbox) unkeepAll() {
	for name := range sb.kept {
		sb.unkeep(name)
	}
}

// save writes a sandbox down. Called with sb.mu held.
func (st *store) save(sb *sandbox) error {
	b, err := json.Marshal(record{stateVersion, sb.have})
	if err != nil {
		return err
	}
	path := st.path(sb.have.ID)
	if err := errors.Join(os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("save sandbox: %w", err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.give(sb.have.ID, sb.kept); err != nil {
		st.log.Warn("the keeper does not take descriptors", "err", err)
	}
	return nil
}

// give leaves the descriptors with the keeper. Called with st.mu held.
func (st *store) give(id string, kept map[string]int) error {
	if st.keeper == nil {
		return nil
	}
	names := slices.Sorted(maps.Keys(kept))
	n := 0
	for chunk := range slices.Chunk(names, setFiles) {
		meta, err := json.Marshal(chunk)
		if err != nil {
			return err
		}
		var fds []int
		for _, name := range chunk {
			fds = append(fds, kept[name])
		}
		if err := st.keeper.Put(setName(id, n), meta, fds...); err != nil {
			return err
		}
		n++
	}
	for i := n; i < st.sets[id]; i++ {
		if err := st.keeper.Drop(setName(id, i)); err != nil {
			return err
		}
	}
	if st.sets[id] = n; n == 0 {
		delete(st.sets, id)
	}
	return nil
}

func setName(id string, n int) string { return fmt.Sprintf("%s#%d", id, n) }

func (st *store) path(id string) string {
	return filepath.Join(st.dir, strings.ReplaceAll(id, "/", "_")+".json")
}

// drop forgets a sandbox.
func (st *store) drop(id string) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.give(id, nil); err != nil {
		st.log.Warn("the keeper does not drop descriptors", "err", err)
	}
	if err := os.Remove(st.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// saved is a sandbox of an earlier helper.
type saved struct {
	sandbox wire.Sandbox
	files   map[string]int
}

// take hands a descriptor out, once.
func (s saved) take(name string) (int, bool) {
	fd, ok := s.files[name]
	delete(s.files, name)
	return fd, ok
}

func (s saved) closeRest() {
	for _, fd := range s.files {
		_ = unix.Close(fd)
	}
}

// load reads what an earlier helper left.
func (st *store) load() ([]saved, error) {
	files, err := st.fetch()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(st.dir)
	if err != nil {
		return nil, err
	}
	var out []saved
	for _, e := range entries {
		path := filepath.Join(st.dir, e.Name())
		if !strings.HasSuffix(path, ".json") {
			_ = os.Remove(path)
			continue
		}
		var r record
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil || r.Version != stateVersion {
			st.log.Warn("cannot read a sandbox's state", "file", path, "version", r.Version, "err", err)
			continue
		}
		out = append(out, saved{r.Sandbox, files[r.Sandbox.ID]})
		delete(files, r.Sandbox.ID)
	}
	for id, rest := range files { // of sandboxes that are gone
		saved{files: rest}.closeRest()
		st.mu.Lock()
		_ = st.give(id, nil)
		st.mu.Unlock()
	}
	return out, nil
}

// fetch gets the descriptors back, by sandbox and name.
func (st *store) fetch() (map[string]map[string]int, error) {
	out := map[string]map[string]int{}
	if st.keeper == nil {
		return out, nil
	}
	sets, err := st.keeper.All()
	if err != nil {
		return nil, fmt.Errorf("get descriptors from the keeper: %w", err)
	}
	for _, s := range sets {
		id, _, _ := strings.Cut(s.Name, "#")
		var names []string
		if json.Unmarshal(s.Meta, &names) != nil || len(names) != len(s.Files) {
			wire.CloseAll(s.Files)
			continue
		}
		if out[id] == nil {
			out[id] = map[string]int{}
		}
		for i, name := range names {
			out[id][name] = s.Files[i]
		}
		st.sets[id]++
	}
	return out, nil
}

// leave disconnects from the keeper, which keeps everything.
func (st *store) leave() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.keeper != nil {
		_ = st.keeper.Close()
	}
}

// follow waits for the keeper's death and gives everything to the next one.
func (st *store) follow(ctx context.Context, execRoot string, s *state) {
	for st.keeper != nil {
		select {
		case <-st.keeper.Done():
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		k, err := fdstore.Redial(ctx, execRoot, "net", nil)
		if err != nil {
			return
		}
		st.mu.Lock()
		st.keeper, st.sets = k, map[string]int{}
		st.mu.Unlock()
		for _, id := range s.list() {
			sb := s.get(id)
			sb.mu.Lock()
			if err := st.save(sb); err != nil {
				st.log.Warn("cannot save a sandbox", "err", err)
			}
			sb.mu.Unlock()
		}
	}
}
