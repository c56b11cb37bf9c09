// Package archive reads and writes tar streams for cp and build. What it
// unpacks is taken for hostile: nothing is written outside of the directory
// that was named.
package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteOptions say what goes into a stream.
type WriteOptions struct {
	// Rename replaces the top entry's name; "" or "." leaves only what is in it.
	Rename string
	// FollowTop opens the top entry if it is a symbolic link.
	FollowTop bool
	// Skip leaves out paths relative to the top, slash-separated, and all
	// below if dir tells so.
	Skip func(rel string, dir bool) (skip, prune bool)
	// ZeroOwner writes owner 0 instead of the file's.
	ZeroOwner bool
}

// Write appends the file or the tree at top to w.
func Write(w *tar.Writer, top string, o WriteOptions) error {
	if o.FollowTop {
		real, err := filepath.EvalSymlinks(top)
		if err != nil {
			return err
		}
		top = real
	}
	st, err := os.Lstat(top)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return writeOne(w, top, o.Rename, st, o)
	}
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if rel != "." && o.Skip != nil {
			if skip, prune := o.Skip(rel, d.IsDir()); skip {
				if prune && d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		name := path.Join(o.Rename, rel)
		if name == "." || name == "" {
			if o.Rename == "" {
				return nil
			}
			name = "."
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return writeOne(w, p, name, info, o)
	})
}

func writeOne(w *tar.Writer, p, name string, st fs.FileInfo, o WriteOptions) error {
	if st.Mode()&fs.ModeSocket != 0 {
		return nil // tar has no form for it
	}
	link := ""
	if st.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(nameless{st}, link)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	h.Name, h.Format = strings.TrimPrefix(name, "/"), tar.FormatPAX
	h.AccessTime, h.ChangeTime = zeroTime(), zeroTime()
	if st.IsDir() && !strings.HasSuffix(h.Name, "/") {
		h.Name += "/"
	}
	if o.ZeroOwner {
		h.Uid, h.Gid = 0, 0
	}
	if c := capability(p); c != "" && st.Mode().IsRegular() {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": c}
	}
	if !st.Mode().IsRegular() {
		return w.WriteHeader(h)
	}
	return writeFile(w, p, h)
}

// writeFile copies exactly the size that the header tells.
func writeFile(w *tar.Writer, p string, h *tar.Header) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(w, f, h.Size); err != nil {
		return fmt.Errorf("%s changed while it was read: %w", p, err)
	}
	return nil
}

// nameless spares the look-up of user and group names.
type nameless struct{ fs.FileInfo }

func (nameless) Uname() (string, error) { return "", nil }
func (nameless) Gname() (string, error) { return "", nil }

func capability(p string) string {
	var buf [64]byte
	n, err := unix.Lgetxattr(p, "security.capability", buf[:])
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
