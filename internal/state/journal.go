package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// formatVersion is the version of the journal and of the database.
const formatVersion = 1

const (
	journalName    = "state.journal"
	journalOldName = "state.journal.old"
	journalNewName = "state.journal.new"
	journalCutName = "state.journal.cut"
	databaseName   = "state.db"
	journalHeader  = 16
)

const journalMagic = "wherryJ\n"

// journal is one append-only file. Its methods are not safe for concurrent use.
type journal struct {
	f    *os.File
	size int64 // bytes of whole records, header included
	bad  error // set when the file can no longer be trusted to end in a whole record
}

// createJournal makes an empty journal, replacing what was there.
func createJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	head := make([]byte, journalHeader)
	copy(head, journalMagic)
	binary.LittleEndian.PutUint32(head[8:], formatVersion)
	if _, err := f.Write(head); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &journal{f: f, size: journalHeader}, nil
}

// append writes one record; on failure the file is cut back to what it was.
func (j *journal) append(rec []byte) error {
	if j.bad != nil {
		return j.bad
	}
	_, err := j.f.WriteAt(rec, j.size)
	if err == nil {
		j.size += int64(len(rec))
		return nil
	}
	if terr := j.f.Truncate(j.size); terr != nil {
		j.bad = fmt.Errorf("journal is unusable after a failed write: %w", errors.Join(err, terr))
	}
	return err
}

// sync makes everything appended durable.
func (j *journal) sync() error {
	for {
		err := unix.Fdatasync(int(j.f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// checkJournalVersion reads nothing but the header. A missing or cut header is fine.
func checkJournalVersion(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, journalHeader)
	if n, _ := f.ReadAt(head, 0); n < journalHeader {
		return nil
	}
	if !bytes.Equal(head[:8], []byte(journalMagic)) {
		return fmt.Errorf("%s is not a state journal: %w", path, errdefs.ErrFailedPrecondition)
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v > formatVersion {
		return versionError(path, uint64(v))
	}
	return nil
}

func versionError(path string, v uint64) error {
	return fmt.Errorf("%s has format version %d, this engine knows versions up to %d; it was left as it is: %w",
		path, v, formatVersion, errdefs.ErrFailedPrecondition)
}

// openJournal replays the journal at path into apply, cuts a bad tail, and
// leaves it open for appending. A missing file is created.
func openJournal(path string, log *slog.Logger, apply func([]Op)) (*journal, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(data) < journalHeader) {
		return createJournal(path)
	}
	if err != nil {
		return nil, err
	}
	end := journalHeader
	var bad error
	for end < len(data) {
		ops, n, err := decode(data[end:])
		if err != nil {
			bad = err
			break
		}
		apply(ops)
		end += n
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if bad != nil {
		if err := cutTail(f, data, end, bad, log); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &journal{f: f, size: int64(end)}, nil
}

// cutTail truncates f to end. What is cut is kept aside unless it is just a
// write that did not finish (or blocks of zeros, as after a power cut).
func cutTail(f *os.File, data []byte, end int, bad error, log *slog.Logger) error {
	tail := data[end:]
	log.Warn("state journal ends in an incomplete record; cutting it off",
		"file", f.Name(), "offset", end, "bytes", len(tail), "err", bad)
	if errors.Is(bad, errCorrupt) && len(bytes.Trim(tail, "\x00")) > 0 {
		keep := filepath.Join(filepath.Dir(f.Name()), journalCutName)
		if err := os.WriteFile(keep, tail, 0o600); err != nil {
			return fmt.Errorf("keep corrupt tail of %s: %w", f.Name(), err)
		}
	}
	return f.Truncate(int64(end))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
