package rotate

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// segment is one file of a log, opened.
type segment struct {
	index  int // 0 is the current file, higher ones are older
	packed bool
	f      *os.File
	ino    uint64 // of f: nobody else's while f is open
	from   uint64 // of the file that a packed one was made from, which may be anybody's by now
}

// continues tells whether s is the file that cur was opened as, maybe packed since.
func (s *segment) continues(cur *segment) bool {
	return s.ino == cur.ino || (s.packed && !cur.packed && s.from == cur.ino)
}

func (s *segment) close() { _ = s.f.Close() }

// entry is one file in the directory.
type entry struct {
	name   string
	index  int
	packed bool
	ino    uint64
}

// list finds the files of a log, oldest first.
func list(path string) ([]entry, error) {
	dir, base := filepath.Split(path)
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []entry
	for _, d := range all {
		e, ok := parseName(base, d.Name())
		if !ok {
			continue
		}
		fi, err := d.Info()
		if err != nil {
			continue // renamed meanwhile: the second look sees the difference
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || !fi.Mode().IsRegular() {
			continue
		}
		e.name, e.ino = filepath.Join(dir, d.Name()), st.Ino
		found = append(found, e)
	}
	slices.SortFunc(found, func(a, b entry) int {
		if a.index != b.index {
			return b.index - a.index
		}
		if a.packed { // while both exist the plain one counts; see below
			return 1
		}
		return -1
	})
	return slices.CompactFunc(found, func(a, b entry) bool { return a.index == b.index }), nil
}

func parseName(base, name string) (entry, bool) {
	if name == base {
		return entry{}, true
	}
	s, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return entry{}, false
	}
	s, packed := strings.CutSuffix(s, gz)
	i, err := strconv.Atoi(s)
	return entry{index: i, packed: packed}, err == nil && i > 0
}

// snapshotPatience is how long a reader tries to see a log as it is at one moment:
// one that is rotated all the time comes to rest when its files are compressed.
const snapshotPatience = 10 * time.Second

// snapshot opens all files of a log, oldest first, as they were at one moment.
func snapshot(path string) ([]*segment, error) {
	var last error
	for end := time.Now().Add(snapshotPatience); time.Now().Before(end); {
		before, err := list(path)
		if err != nil {
			return nil, err
		}
		segs, err := openAll(before)
		if err != nil {
			last = err
			continue
		}
		after, err := list(path)
		if err != nil {
			closeAll(segs)
			return nil, err
		}
		if slices.Equal(before, after) {
			return segs, nil
		}
		closeAll(segs)
	}
	return nil, errors.Join(errors.New("the log is rotated faster than it can be opened"), last)
}

func openAll(entries []entry) ([]*segment, error) {
	segs := make([]*segment, 0, len(entries))
	for _, e := range entries {
		f, err := os.Open(e.name)
		if err != nil {
			closeAll(segs)
			return nil, err
		}
		s := &segment{index: e.index, packed: e.packed, f: f, ino: e.ino}
		segs = append(segs, s)
		if e.packed {
			s.from = packedInode(f)
		}
	}
	return segs, nil
}

func closeAll(segs []*segment) {
	for _, s := range segs {
		s.close()
	}
}

// The comment of a packed file's header names the inode it was made from, so
// that a reader which has that one open recognizes it.
const inodeComment = "inode "

func packedInode(f *os.File) uint64 {
	z, err := gzip.NewReader(f)
	if err != nil {
		return 0
	}
	_, _ = f.Seek(0, io.SeekStart)
	s, _ := strings.CutPrefix(z.Comment, inodeComment)
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
