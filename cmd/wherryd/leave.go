package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/wherry-engine/wherry/task"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupParent is the parent of the control groups of containers and build steps.
func (e *engine) cgroupParent() string {
	cfg := e.cfg.Load()
	return cmp.Or(cfg.Containers.CgroupParent, task.DefaultCgroupParent(cfg.SystemdCgroup()))
}

// leaveNothing takes away what is empty once nothing runs: directories of the
// exec root, and the control groups that containers were in.
func (e *engine) leaveNothing(context.Context) error {
	if !e.idle {
		return nil
	}
	cfg := e.cfg.Load()
	for _, dir := range []string{filepath.Join(cfg.ExecRoot, "shm"), cfg.ExecRoot} {
		_ = os.Remove(dir) // it stays if anything is in it
	}
	parent := e.cgroupParent()
	if strings.HasSuffix(parent, ".slice") {
		return nil // systemd's to keep
	}
	removeGroups(cgroupRoot, filepath.Clean("/"+parent))
	return nil
}

// removeGroups removes a control group from every hierarchy where it has
// neither processes nor groups below it.
func removeGroups(root, group string) {
	if group == "/" {
		return
	}
	_ = os.Remove(filepath.Join(root, group)) // version 2
	hierarchies, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, h := range hierarchies {
		if h.IsDir() && h.Name() != strings.Trim(group, "/") {
			_ = os.Remove(filepath.Join(root, h.Name(), group))
		}
	}
}
