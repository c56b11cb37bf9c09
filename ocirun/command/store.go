package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/coldjson"
	"github.com/wherry-engine/wherry/ocirun"
)

// record is the state file of one container.
type record struct {
	head
	// Spec as it was when the container was created.
	Spec *specs.Spec `json:"spec"`
}

// head is a record without the specification, which takes most of the time of
// reading it.
type head struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Pid     int       `json:"pid"`
	Born    uint64    `json:"born"` // the kernel's start time of Pid, against reuse of the number
	Bundle  string    `json:"bundle"`
	Cgroup  string    `json:"cgroup"`
	Created time.Time `json:"created"`
	// Systemd is set for the systemd cgroup driver.
	Systemd bool `json:"systemd,omitempty"`
	// MountsBefore is ocirun.Container's.
	MountsBefore []int `json:"mountsBefore,omitempty"`
	// Bare containers are started and deleted without a look at Spec: it has no
	// hooks, agent or class of service, and a mount namespace of its own.
	Bare bool `json:"bare,omitempty"`
}

const recordVersion = 1

// startSocket exists until the container is started.
const startSocket = "start.sock"

func checkID(id string) error {
	if id == "." || id == ".." || len(id) > 1024 {
		return fmt.Errorf("invalid container name %q: %w", id, errdefs.ErrInvalidArgument)
	}
	for _, c := range id {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.", c) {
			return fmt.Errorf("invalid container name %q: %w", id, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func (g *globals) dir(id string) string { return filepath.Join(g.root, id) }

// load reads a record. NotFound.
func (g *globals) load(id string) (*record, error) { return g.read(id, false) }

// read reads a record, without Spec if brief is set and the container bare.
func (g *globals) read(id string, brief bool) (*record, error) {
	b, err := os.ReadFile(filepath.Join(g.dir(id), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var r record
	if brief {
		err = coldjson.Unmarshal(b, &r.head)
		brief = r.Bare
	}
	if !brief && err == nil {
		err = coldjson.Unmarshal(b, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", id, err)
	}
	if r.Version != recordVersion || r.Spec == nil && !brief {
		return nil, fmt.Errorf("state of %s has version %d, this runtime knows %d", id, r.Version, recordVersion)
	}
	return &r, nil
}

// write writes a record where nobody looks, and show puts it where it belongs:
// a reader sees it whole or not at all.
func (g *globals) write(r *record) error {
	b, err := coldjson.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(g.state(r.ID)+".new", b, 0o600)
}

func (g *globals) show(r *record) error { return os.Rename(g.state(r.ID)+".new", g.state(r.ID)) }

func (g *globals) state(id string) string { return filepath.Join(g.dir(id), "state.json") }

// born reads the start time of a process and whether it is a zombie.
func born(pid int) (ticks uint64, zombie bool, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The name may contain anything, also parentheses.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, false, errors.New("short stat line")
	}
	ticks, err = strconv.ParseUint(f[19], 10, 64)
	return ticks, f[0] == "Z" || f[0] == "X", err
}

// alive tells whether the container's first process still runs.
func (r *record) alive() bool {
	ticks, zombie, err := born(r.Pid)
	return err == nil && ticks == r.Born && !zombie
}

// status as the specification words it, and "paused".
func (g *globals) status(rt *ocirun.Runtime, r *record) specs.ContainerState {
	if !r.alive() {
		return specs.StateStopped
	}
	if paused, err := rt.Paused(r.Cgroup); err == nil && paused {
		return "paused"
	}
	if _, err := os.Lstat(filepath.Join(g.dir(r.ID), startSocket)); err == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// pidfd opens the container's first process. FailedPrecondition if it is gone.
func (r *record) pidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), "pidfd")
		if r.alive() {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("container %s is not running: %w", r.ID, errdefs.ErrFailedPrecondition)
}

// open is how most commands begin.
func (g *globals) open(id string) (*ocirun.Runtime, *record, error) { return g.openTo(id, false) }

// openTo is open, for commands that do with a brief record (see read).
func (g *globals) openTo(id string, brief bool) (*ocirun.Runtime, *record, error) {
	r, err := g.read(id, brief)
	if err != nil {
		return nil, nil, err
	}
	rt, err := ocirun.New(ocirun.Options{Logger: g.logger(), Single: true})
	return rt, r, err
}

// hooks runs those of the runtime's namespaces that come after creation.
func (r *record) hooks(ctx context.Context, name string, hooks []specs.Hook, pid int, status specs.ContainerState) error {
	return ocirun.RunHooks(ctx, name, hooks, r.request(), pid, status)
}

// request is as much of the request that made the container as hooks and
// agents are told.
func (r *record) request() *ocirun.CreateRequest {
	return &ocirun.CreateRequest{ID: r.ID, Spec: r.Spec, Bundle: r.Bundle}
}
