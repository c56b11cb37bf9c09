package command

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// pidFile is the name of a file that a caller reads a process id from, or "".
type pidFile string

// write writes it under another name, and show renames that.
func (f pidFile) write(pid int) error {
	if f == "" {
		return nil
	}
	return os.WriteFile(f.hidden(), []byte(strconv.Itoa(pid)), 0o644)
}

func (f pidFile) show() error {
	if f == "" {
		return nil
	}
	return os.Rename(f.hidden(), string(f))
}

// discard removes what write wrote, if it did.
func (f pidFile) discard() error {
	if f == "" {
		return nil
	}
	if err := os.Remove(f.hidden()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (f pidFile) hidden() string {
	return filepath.Join(filepath.Dir(string(f)), "."+filepath.Base(string(f)))
}
