package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
)

// DefaultContext is the context made of flags and environment.
const DefaultContext = "default"

// Context is one stored way to reach a daemon.
type Context struct {
	Name     string
	Metadata map[string]any
	// Endpoints by name; "docker" is the engine.
	Endpoints map[string]Endpoint
	// MetadataPath and TLSPath are the directories it is kept in.
	MetadataPath, TLSPath string
}

// Endpoint is one address of a context.
type Endpoint struct {
	Host          string
	SkipTLSVerify bool
}

// Description returns the user's note on the context.
func (c Context) Description() string {
	s, _ := c.Metadata["Description"].(string)
	return s
}

// TLSDir returns the directory with ca.pem, cert.pem and key.pem of the engine
// endpoint, or "" if it has none.
func (c Context) TLSDir() string {
	dir := filepath.Join(c.TLSPath, "docker")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) == 0 {
		return ""
	}
	return dir
}

// TLSFiles lists the file names kept for each endpoint.
func (c Context) TLSFiles() map[string][]string {
	files := map[string][]string{}
	for name := range c.Endpoints {
		entries, err := os.ReadDir(filepath.Join(c.TLSPath, name))
		if err != nil {
			continue
		}
		for _, e := range entries {
			files[name] = append(files[name], e.Name())
		}
	}
	return files
}

// Context reads one stored context. A missing one is errdefs.ErrNotFound.
func (f *File) Context(name string) (Context, error) {
	id := contextID(name)
	c, err := readContext(filepath.Join(f.Dir, "contexts"), id)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("context %q: context not found: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return c, fmt.Errorf("context %q: %w", name, err)
	}
	return c, nil
}

// Contexts lists the stored contexts by name; "default" is not stored.
func (f *File) Contexts() ([]Context, error) {
	root := filepath.Join(f.Dir, "contexts")
	entries, err := os.ReadDir(filepath.Join(root, "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Context
	for _, e := range entries {
		c, err := readContext(root, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("context %s: %w", e.Name(), err)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Context) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all, nil
}

func readContext(root, id string) (Context, error) {
	c := Context{
		MetadataPath: filepath.Join(root, "meta", id),
		TLSPath:      filepath.Join(root, "tls", id),
	}
	raw, err := os.ReadFile(filepath.Join(c.MetadataPath, "meta.json"))
	if err != nil {
		return c, err
	}
	var meta struct {
		Name      string
		Metadata  map[string]any
		Endpoints map[string]Endpoint
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return c, err
	}
	c.Name, c.Metadata, c.Endpoints = meta.Name, meta.Metadata, meta.Endpoints
	return c, nil
}

// contextID is the directory name of a context.
func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}
