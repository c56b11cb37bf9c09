package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/snapshot/tree"
)

// baseDir holds a base for each chain (see tree.MakeBase), the directory
// between a chain and the writable layers above it.
const baseDir = ".base"

func baseName(chain digest.Digest) string {
	if chain == "" {
		return strconv.Itoa(tree.BaseVersion) + "-" + noChain
	}
	return strconv.Itoa(tree.BaseVersion) + "-" + chain.Encoded()
}

// base returns the base of a chain, made if it is not there.
func (d *Driver) base(chain digest.Digest, lower []string) (string, error) {
	d.mu.Lock()
	dir, ok := d.bases[chain]
	d.mu.Unlock()
	if ok {
		return dir, nil
	}
	d.baseMu.Lock()
	defer d.baseMu.Unlock()
	dir = filepath.Join(d.opts.Root, baseDir, baseName(chain))
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := tree.MakeBase(dir, lower); err != nil {
			return "", fmt.Errorf("make the base of %s: %w", chain, err)
		}
	} else if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bases[chain] = dir
	return dir, nil
}

// dropBases removes the bases of chains that no layer uses, and half-made ones.
func (d *Driver) dropBases() error {
	used := map[string]bool{}
	for _, chain := range d.users {
		used[baseName(chain)] = true
	}
	dir := filepath.Join(d.opts.Root, baseDir)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !used[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
