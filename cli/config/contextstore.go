package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// TLSData are the files of an endpoint: ca.pem, cert.pem, key.pem by name.
type TLSData map[string][]byte

// ValidContextName reports whether a context can be called so: letters, digits
// and _ . + - after a first letter or digit.
func ValidContextName(name string) bool {
	if len(name) < 2 || name == DefaultContext {
		return false
	}
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '+' && r != '-') {
			return false
		}
	}
	return true
}

// WriteContext stores c and the files of its engine endpoint; tls nil leaves
// those that are there.
func (f *File) WriteContext(c Context, tls TLSData) error {
	id := contextID(c.Name)
	meta := filepath.Join(f.Dir, "contexts", "meta", id)
	files := filepath.Join(f.Dir, "contexts", "tls", id)
	raw, err := json.Marshal(struct {
		Name      string
		Metadata  map[string]any
		Endpoints map[string]Endpoint
	}{c.Name, c.Metadata, c.Endpoints})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(meta, 0o755); err != nil {
		return err
	}
	if tls != nil {
		if err := os.RemoveAll(files); err != nil {
			return err
		}
	}
	for name, content := range tls {
		if name != filepath.Base(name) || name == "." || name == ".." {
			return fmt.Errorf("context %q: file name %q: %w", c.Name, name, errdefs.ErrInvalidArgument)
		}
		dir := filepath.Join(files, "docker")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(meta, "meta.json"), raw)
}

// ReadTLS reads the files of the engine endpoint.
func (c Context) ReadTLS() (TLSData, error) {
	dir := c.TLSDir()
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	data := TLSData{}
	for _, e := range entries {
		if data[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// RemoveContext removes a context and its files.
func (f *File) RemoveContext(name string) error {
	id := contextID(name)
	return errors.Join(
		os.RemoveAll(filepath.Join(f.Dir, "contexts", "meta", id)),
		os.RemoveAll(filepath.Join(f.Dir, "contexts", "tls", id)),
	)
}
