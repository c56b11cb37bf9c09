package tree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// BaseVersion changes with the entries of a base.
const BaseVersion = 1

// baseEntry is something a container expects. Nothing is made where the image
// has anything of the name.
type baseEntry struct {
	path string
	mode uint32 // type and permissions
	link string
}

func baseEntries() []baseEntry {
	const dir, file = unix.S_IFDIR, unix.S_IFREG
	return []baseEntry{
		{path: "dev", mode: dir | 0o755}, {path: "dev/pts", mode: dir | 0o755}, {path: "dev/shm", mode: dir | 0o1777},
		{path: "proc", mode: dir | 0o755}, {path: "sys", mode: dir | 0o755},
		{path: ".dockerenv", mode: file | 0o755},
		{path: "etc", mode: dir | 0o755},
		{path: "etc/hosts", mode: file | 0o644}, {path: "etc/hostname", mode: file | 0o644}, {path: "etc/resolv.conf", mode: file | 0o644},
		{path: "etc/mtab", mode: unix.S_IFLNK, link: "/proc/mounts"},
	}
}

// MakeBase makes a directory with the mount points that every container needs
// and the lower directories lack, to lie over them: so they are neither made in
// each writable layer nor seen as a change of it, and a read-only root has them
// too. It is built beside its place and renamed, so that it is whole or not there.
func MakeBase(dir string, lower []string) (err error) {
	tmp := filepath.Join(filepath.Dir(dir), "new-"+rand.Text())
	if err := os.Mkdir(tmp, 0o755); err != nil { //nolint:gosec // it becomes the root of containers
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := FillBase(tmp, lower); err != nil {
		return err
	}
	if err := inheritTree(tmp, lower); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// FillBase makes in root the mount points that lower, which root may be itself, lacks.
// Times of directories that are there already stay.
func FillBase(root string, lower []string) error {
	defer keepTimes(root, "", "etc", "dev")()
	for _, e := range baseEntries() {
		if err := e.make(root, lower); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return nil
}

// keepTimes returns a function that restores the times of directories.
func keepTimes(root string, paths ...string) func() {
	var undo []func()
	for _, p := range paths {
		dir := filepath.Join(root, p)
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil {
			continue
		}
		undo = append(undo, func() {
			// Failing changes nothing but what a comparison reports.
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		})
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}

// make makes the entry unless the image has something there, or has something
// else than a directory above it.
func (e baseEntry) make(root string, lower []string) error {
	parent, name := path.Split(e.path)
	for part := range strings.SplitSeq(strings.Trim(parent, "/"), "/") {
		if part == "" {
			continue
		}
		below, top := Merge(lower, part)
		if top != "" && len(below) == 0 {
			return nil
		}
		lower = below
	}
	if _, top := Merge(lower, name); top != "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(root, parent), 0o755); err != nil { //nolint:gosec // of a container
		return err
	}
	p := filepath.Join(root, e.path)
	switch e.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.MkdirAll(p, 0o755); err != nil { //nolint:gosec // of a container
			return err
		}
	case unix.S_IFLNK:
		return os.Symlink(e.link, p)
	default:
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			return err
		}
	}
	return unix.Chmod(p, e.mode&0o7777)
}

// inheritTree gives the directories of a base, which lie over those of the
// image, the image's owners, modes and times.
func inheritTree(root string, lower []string) error {
	for _, p := range []string{"etc", "dev", ""} {
		if _, err := os.Lstat(filepath.Join(root, p)); err != nil {
			continue
		}
		below := lower
		if p != "" {
			below, _ = Merge(lower, p)
		}
		if len(below) == 0 {
			continue
		}
		if err := copyDirAttributes(below[0], filepath.Join(root, p)); err != nil {
			return err
		}
	}
	return nil
}

func copyDirAttributes(from, to string) error {
	if err := CopyAttributes(from, to); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// BasePaths lists the mount points, as absolute paths.
func BasePaths() []string {
	entries := baseEntries()
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, "/"+e.path)
	}
	return list
}
