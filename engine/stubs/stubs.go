// Package stubs hides the mount points that the engine makes in a writable
// layer for its own mounts: they are no change of the user's.
package stubs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/wherry-engine/wherry/snapshot"
)

// files and dirs are what a container gets whatever its image has.
func files() []string { return []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} }
func dirs() []string  { return []string{"/dev", "/proc", "/sys"} }

// parents may exist only because of files.
func parents() []string { return []string{"/etc"} }

// Changes removes the stubs from a list of changes.
func Changes(all []snapshot.Change) []snapshot.Change {
	out := slices.DeleteFunc(slices.Clone(all), func(c snapshot.Change) bool {
		return c.Kind == snapshot.Added && slices.Contains(append(files(), dirs()...), c.Path)
	})
	if len(out) == len(all) {
		return out
	}
	return slices.DeleteFunc(out, func(c snapshot.Change) bool {
		if c.Kind == snapshot.Deleted || !slices.Contains(parents(), c.Path) {
			return false
		}
		return !slices.ContainsFunc(out, func(o snapshot.Change) bool { return strings.HasPrefix(o.Path, c.Path+"/") })
	})
}

// Filter copies a layer that write produces to w, without the stubs: files of
// those names that are empty, and the directories if nothing is in them.
func Filter(w io.Writer, write func(io.Writer) error) error {
	r, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(pw)
		done <- errors.Join(err, pw.CloseWithError(err))
	}()
	err := filter(w, r)
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if werr := <-done; err == nil {
		err = werr
	}
	return err
}

func filter(w io.Writer, r io.Reader) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	held := map[string]*tar.Header{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end of the archive is padding.
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			return tw.Close()
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		name := path.Join("/", h.Name)
		if isStub(h, name) {
			held[name] = h
			continue
		}
		for p := path.Dir(name); p != "/"; p = path.Dir(p) {
			if dir := held[p]; dir != nil && dir.Typeflag == tar.TypeDir {
				delete(held, p)
				if err := tw.WriteHeader(dir); err != nil {
					return err
				}
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

func isStub(h *tar.Header, name string) bool {
	switch h.Typeflag {
	case tar.TypeReg:
		return h.Size == 0 && slices.Contains(files(), name)
	case tar.TypeDir:
		return slices.Contains(dirs(), name)
	}
	return false
}
