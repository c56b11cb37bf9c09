package state

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Options for Open.
type Options struct {
	// Dir is an existing directory of which this store owns state.db and state.journal*.
	Dir string
	// Logger receives what happened to the files; nil discards.
	Logger *slog.Logger
	// FoldBytes is the size of the journal that starts a fold into the
	// database. Default 1 MiB.
	FoldBytes int64
}

const defaultFoldBytes = 1 << 20

// maxLag is how many times FoldBytes the journal may grow while a fold is
// running; then writers wait for it.
const maxLag = 16

// value is a slot of an overlay; a nil data means the key is deleted.
type value struct {
	data    []byte
	deleted bool
}

type overlay map[string]map[string]value

func (o overlay) apply(ops []Op) {
	for _, op := range ops {
		b := o[op.Bucket]
		if b == nil {
			b = make(map[string]value)
			o[op.Bucket] = b
		}
		b[op.Key] = value{data: op.Value, deleted: op.Delete}
	}
}

// Store is a set of buckets. Its methods are safe for concurrent use. Errors of
// the disk (ENOSPC, EIO) come back wrapped; after one, the store holds what it
// held before the call.
type Store struct {
	dir  string
	log  *slog.Logger
	fold int64
	db   *bolt.DB

	mu       sync.RWMutex // guards what follows, and appending to the journal
	journal  *journal
	active   overlay
	frozen   overlay // being folded, or nil
	closed   bool
	written  int64 // bytes appended since Open, over all journals
	dirDirty bool  // the directory entry of the journal is not yet durable

	syncMu  sync.Mutex // held during fdatasync; taken before mu
	synced  int64      // of written
	syncErr error      // a failed fdatasync is final: the kernel dropped the pages

	folding  chan struct{} // closed when the running fold ends; nil if none; under mu
	foldFail time.Time     // of the last failed fold; under mu
	folders  sync.WaitGroup
}

// Open opens or makes the store. FailedPrecondition if the files are of a newer version.
func Open(opts Options) (*Store, error) {
	s := &Store{dir: opts.Dir, log: opts.Logger, fold: opts.FoldBytes, active: overlay{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.fold <= 0 {
		s.fold = defaultFoldBytes
	}
	for _, name := range []string{journalOldName, journalName} {
		if err := checkJournalVersion(filepath.Join(s.dir, name)); err != nil {
			return nil, fmt.Errorf("open engine state: %w", err)
		}
	}
	db, err := openDatabase(filepath.Join(s.dir, databaseName))
	if err != nil {
		return nil, fmt.Errorf("open engine state: %w", err)
	}
	s.db = db
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open engine state: %w", errors.Join(err, db.Close()))
	}
	return s, nil
}

// load replays the journals. An old one is folded at once, so that at most one is left.
func (s *Store) load() error {
	cur, old, next := s.path(journalName), s.path(journalOldName), s.path(journalNewName)
	if !exists(cur) && exists(next) {
		// Killed between the two renames of a rotation.
		if err := os.Rename(next, cur); err != nil {
			return err
		}
	}
	if exists(old) {
		if err := s.loadOld(old); err != nil {
			return err
		}
	}
	j, err := openJournal(cur, s.log, s.active.apply)
	if err != nil {
		return err
	}
	s.journal, s.dirDirty = j, true
	s.written, s.synced = j.size, 0
	return nil
}

// loadOld folds the journal of a fold that was cut short. On a full disk it
// stays as it is, to be folded later.
func (s *Store) loadOld(old string) error {
	frozen := overlay{}
	j, err := openJournal(old, s.log, frozen.apply)
	if err != nil {
		return err
	}
	if err := j.f.Close(); err != nil {
		return err
	}
	err = s.store(frozen)
	if errors.Is(err, unix.ENOSPC) {
		s.log.Warn("no space to fold engine state; it stays in its journal", "err", err)
		s.frozen = frozen
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(old), syncDir(s.dir))
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Put sets a key. It survives the death of the process, not a power cut.
func (s *Store) Put(bucket, key string, val []byte) error {
	_, err := s.append([]Op{{Bucket: bucket, Key: key, Value: val}})
	return err
}

// PutDurable sets a key and returns once that is on disk.
func (s *Store) PutDurable(bucket, key string, val []byte) error {
	return s.BatchDurable(Op{Bucket: bucket, Key: key, Value: val})
}

// Delete removes a key; a missing one is no error.
func (s *Store) Delete(bucket, key string) error {
	_, err := s.append([]Op{{Bucket: bucket, Key: key, Delete: true}})
	return err
}

// Batch makes all changes or none, as Put does.
func (s *Store) Batch(ops ...Op) error {
	_, err := s.append(ops)
	return err
}

// BatchDurable is Batch that returns once the changes are on disk.
func (s *Store) BatchDurable(ops ...Op) error {
	pos, err := s.append(ops)
	if err != nil {
		return err
	}
	return s.syncTo(pos)
}

// Sync returns once every change made before the call is on disk.
func (s *Store) Sync() error {
	s.mu.RLock()
	pos := s.written
	s.mu.RUnlock()
	return s.syncTo(pos)
}

// Get returns the value of a key, which must not be modified. NotFound.
func (s *Store) Get(bucket, key string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed()
	}
	for _, o := range []overlay{s.active, s.frozen} {
		if v, ok := o[bucket][key]; ok {
			if v.deleted {
				return nil, notFound(bucket, key)
			}
			return v.data, nil
		}
	}
	return s.getStored(bucket, key)
}

// ForEach calls fn for every key of the bucket as it was at the time of the
// call, in order of keys, until fn fails. fn may change the store.
func (s *Store) ForEach(bucket string, fn func(key string, val []byte) error) error {
	all, err := s.snapshot(bucket)
	if err != nil {
		return err
	}
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	for _, k := range keys {
		if err := fn(k, all[k]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) snapshot(bucket string) (map[string][]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed()
	}
	all, err := s.readStored(bucket)
	if err != nil {
		return nil, err
	}
	for _, o := range []overlay{s.frozen, s.active} {
		for k, v := range o[bucket] {
			if v.deleted {
				delete(all, k)
			} else {
				all[k] = v.data
			}
		}
	}
	return all, nil
}

// Close folds what is left, makes everything durable and releases the files.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.folders.Wait()

	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.frozen == nil && s.journal.bad == nil && s.journal.size > journalHeader {
		// Everything is in the overlay: store it, then the journal may go.
		if err = s.store(s.active); err == nil {
			err = s.journal.f.Truncate(journalHeader)
			s.journal.size = journalHeader
		}
	}
	if err != nil {
		s.log.Warn("engine state stays in the journal", "err", err)
		err = s.journal.sync()
	}
	return errors.Join(err, s.journal.f.Close(), s.db.Close())
}

func notFound(bucket, key string) error {
	return fmt.Errorf("%s %q: %w", bucket, key, errdefs.ErrNotFound)
}

func errClosed() error {
	return fmt.Errorf("engine state is closed: %w", errdefs.ErrUnavailable)
}
