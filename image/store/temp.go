package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tempPrefix marks the store's files in the data root's tmp directory.
const tempPrefix = "image-"

func randomID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// temp makes a file without a name that vanishes when it is closed.
func (s *Store) temp() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.opts.Root, "tmp"), tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// clearTemp removes files that a killed process left between making and unlinking them.
func (s *Store) clearTemp() error {
	list, err := filepath.Glob(filepath.Join(s.opts.Root, "tmp", tempPrefix+"*"))
	for _, f := range list {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}
