// Package exits is the file in which the keeper records how orphans ended, for
// a supervisor that was not their parent (any more) to read.
//
// The file starts with a line naming its version; each further line is
// "pid starttime exitcode", where starttime is field 22 of /proc/PID/stat
// (clock ticks since boot) and tells reused pids apart.
package exits

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	name   = "exits"
	header = "wherry-exits 1\n"
	// maxSize is when the file is rotated (bytes); one older file is kept.
	maxSize = 1 << 20
)

// Exit is how a process ended.
type Exit struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
	// Code is 128+n for death by signal n.
	Code int `json:"code"`
}

// Recorder appends to the file of an exec root. It has one owner.
type Recorder struct {
	dir  string
	f    *os.File
	size int64
}

// NewRecorder opens the file, making it if missing.
func NewRecorder(execRoot string) (*Recorder, error) {
	r := &Recorder{dir: execRoot}
	return r, r.open()
}

func (r *Recorder) open() error {
	f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.f, r.size = f, fi.Size()
	if r.size == 0 {
		n, err := f.WriteString(header)
		r.size += int64(n)
		return err
	}
	return nil
}

// Add appends one exit.
func (r *Recorder) Add(e Exit) error {
	if r.size > maxSize {
		path := filepath.Join(r.dir, name)
		if err := errors.Join(r.f.Close(), os.Rename(path, path+".1"), r.open()); err != nil {
			return err
		}
	}
	n, err := fmt.Fprintf(r.f, "%d %d %d\n", e.Pid, e.Start, e.Code)
	r.size += int64(n)
	return err
}

// Close closes the file.
func (r *Recorder) Close() error { return r.f.Close() }

// Read returns everything recorded, oldest first.
func Read(execRoot string) ([]Exit, error) {
	var all []Exit
	for _, n := range []string{name + ".1", name} {
		b, err := os.ReadFile(filepath.Join(execRoot, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		part, err := parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		all = append(all, part...)
	}
	return all, nil
}

func parse(b []byte) ([]Exit, error) {
	rest, ok := bytes.CutPrefix(b, []byte(header))
	if !ok && len(b) > 0 {
		return nil, errors.New("unknown version of the exit records")
	}
	var all []Exit
	sc := bufio.NewScanner(bytes.NewReader(rest))
	for sc.Scan() {
		f := bytes.Fields(sc.Bytes())
		if len(f) != 3 {
			continue // a line cut short by a crash
		}
		pid, err1 := strconv.Atoi(string(f[0]))
		start, err2 := strconv.ParseUint(string(f[1]), 10, 64)
		code, err3 := strconv.Atoi(string(f[2]))
		if err1 == nil && err2 == nil && err3 == nil {
			all = append(all, Exit{pid, start, code})
		}
	}
	return all, nil
}

// Remove deletes the files.
func Remove(execRoot string) {
	_ = os.Remove(filepath.Join(execRoot, name))
	_ = os.Remove(filepath.Join(execRoot, name+".1"))
}
