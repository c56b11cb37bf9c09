package state

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// foldRetry is the pause after a fold that failed, as on a full disk.
const foldRetry = 10 * time.Second

// append writes one record and applies it. It returns the position to which
// syncTo has to go to make it durable.
func (s *Store) append(ops []Op) (int64, error) {
	if len(ops) == 0 {
		return 0, nil
	}
	own := slices.Clone(ops)
	for i := range own {
		own[i].Value = slices.Clone(own[i].Value)
	}
	rec, err := encode(own)
	if err != nil {
		return 0, fmt.Errorf("write engine state: %w", err)
	}
	s.waitForFold()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errClosed()
	}
	if err := s.journal.append(rec); err != nil {
		return 0, fmt.Errorf("write engine state: %w", err)
	}
	s.active.apply(own)
	s.written += int64(len(rec))
	if s.journal.size > s.fold && s.folding == nil && time.Since(s.foldFail) > foldRetry {
		s.startFold()
	}
	return s.written, nil
}

// waitForFold holds a writer back while a fold is far behind.
func (s *Store) waitForFold() {
	s.mu.RLock()
	folding, lag := s.folding, s.journal.size > maxLag*s.fold
	s.mu.RUnlock()
	if folding != nil && lag {
		<-folding
	}
}

// syncTo returns when the journal is durable up to pos. Whoever holds syncMu
// syncs for all who queue behind: they find their position covered.
func (s *Store) syncTo(pos int64) error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced >= pos {
		return nil
	}
	return s.syncLocked()
}

// syncLocked syncs what is written now. syncMu is held, mu is not.
func (s *Store) syncLocked() error {
	if s.syncErr != nil {
		return s.syncErr
	}
	s.mu.Lock()
	j, upto, dir, closed := s.journal, s.written, s.dirDirty, s.closed
	s.dirDirty = false
	s.mu.Unlock()
	if closed {
		return errClosed()
	}
	err := j.sync()
	if err == nil && dir {
		err = syncDir(s.dir)
	}
	if err != nil {
		s.syncErr = fmt.Errorf("sync engine state: %w", err)
		return s.syncErr
	}
	s.synced = upto
	return nil
}

// startFold begins a fold in the background. mu is held.
func (s *Store) startFold() {
	done := make(chan struct{})
	s.folding = done
	s.folders.Go(func() {
		defer close(done)
		err := s.foldOnce()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.folding = nil
		s.foldFail = time.Time{}
		if err != nil {
			s.foldFail = time.Now()
			s.log.Error("fold engine state into the database", "err", err)
		}
	})
}

// foldOnce moves the overlay into the database. After a failure the frozen
// overlay and its journal stay, and the next fold begins with them.
func (s *Store) foldOnce() error {
	s.mu.RLock()
	frozen := s.frozen
	s.mu.RUnlock()
	if frozen == nil {
		var err error
		if frozen, err = s.rotate(); err != nil {
			return fmt.Errorf("rotate journal: %w", err)
		}
	}
	if err := s.store(frozen); err != nil {
		return err
	}
	// The journal goes before the overlay does: one that came back later would
	// undo newer changes in the database.
	if err := errors.Join(os.Remove(s.path(journalOldName)), syncDir(s.dir)); err != nil {
		return err
	}
	s.mu.Lock()
	s.frozen = nil
	s.mu.Unlock()
	return nil
}

// rotate starts a new journal and freezes the overlay.
func (s *Store) rotate() (overlay, error) {
	next, err := createJournal(s.path(journalNewName))
	if err != nil {
		return nil, err
	}
	// Syncing now leaves almost nothing to sync while writers are held back.
	if err := errors.Join(next.sync(), s.Sync()); err != nil {
		return nil, errors.Join(err, next.f.Close())
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced < s.written {
		if err := s.journal.sync(); err != nil {
			return nil, errors.Join(err, next.f.Close())
		}
		s.synced = s.written
	}
	if err := os.Rename(s.path(journalName), s.path(journalOldName)); err != nil {
		return nil, errors.Join(err, next.f.Close())
	}
	if err := os.Rename(s.path(journalNewName), s.path(journalName)); err != nil {
		back := os.Rename(s.path(journalOldName), s.path(journalName))
		return nil, errors.Join(err, back, next.f.Close())
	}
	old := s.journal
	s.frozen, s.active = s.active, overlay{}
	s.journal, s.dirDirty = next, true
	return s.frozen, old.f.Close()
}
