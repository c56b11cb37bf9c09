package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/mounts"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// Exit codes of a start that failed.
const (
	codeNotFound   = 127
	codeNotAllowed = 126
	codeFailed     = 128
)

// Start runs a created or exited container. NotModified if it runs already,
// Conflict (paused, being removed), InvalidArgument (nothing to execute).
func (e *Engine) Start(ctx context.Context, ref string) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var remove bool
	err = u.owner.do(func() error {
		e.refresh(ctx, u)
		if err := startable(u); err != nil {
			return err
		}
		err := e.start(ctx, u)
		remove = err != nil && u.spec.Load().HostConfig.AutoRemove
		return err
	})
	if remove {
		if rerr := e.remove(ctx, u, container.DeleteRequest{Volumes: true}); rerr != nil {
			e.log.Error("remove container that did not start", "container", u.id, "err", rerr)
		}
	}
	return err
}

func startable(u *unit) error {
	if u.isGone() {
		return notFound(string(u.id))
	}
	switch u.status.Load().State {
	case container.StatePaused:
		return conflict("cannot start a paused container, try unpause instead")
	case container.StateRunning, container.StateRestarting:
		return errdefs.ErrNotModified.WithMessage("container " + string(u.id) + " is already running")
	case container.StateRemoving, container.StateDead:
		return conflict("container is marked for removal and cannot be started")
	}
	return nil
}

// start makes the task. The caller owns u.
func (e *Engine) start(ctx context.Context, u *unit) error {
	ph := newPhases()
	st, err := e.launch(ctx, u, ph)
	if err != nil {
		return e.startFailed(u, err)
	}
	serr := e.setStatus(u, func(s *container.Status) {
		*s = container.Status{Version: formatVersion, State: container.StateRunning, Pid: st.Pid, StartedAt: st.StartedAt, FinishedAt: s.FinishedAt}
		if s.StartedAt.IsZero() {
			s.StartedAt = time.Now().UTC()
		}
	})
	if serr != nil {
		e.log.Error("container runs, but that could not be saved", "container", u.id, "err", serr)
	}
	ph.end("save")
	e.emit(u, apievents.ActionStart, ph.attrs())
	u.forgetHealth()
	e.startProbe(u)
	return nil
}

// startFailed records why, and frees what waited for the start.
func (e *Engine) startFailed(u *unit, err error) error {
	code, err := explainStart(err)
	serr := e.setStatus(u, func(s *container.Status) {
		s.ExitCode, s.Error, s.Pid = code, err.Error(), 0
	})
	for _, a := range u.takeAttach() {
		_ = a.conn.Close()
	}
	return errors.Join(err, serr)
}

// explainStart explains an error of the supervisor; others stay as they are.
func explainStart(err error) (int, error) {
	var create createError
	if !errors.As(err, &create) {
		return codeFailed, err
	}
	text := err.Error()
	if !errdefs.IsInvalidArgument(err) && (!strings.Contains(text, "mount") || !strings.Contains(text, "not a directory")) {
		return codeFailed, err
	}
	return explain(err)
}

// explain gives an error of the runtime the class, text and exit code that
// clients look for.
func explain(err error) (int, error) {
	text := strings.ToLower(err.Error())
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("executable file not found", "no such file or directory", "system cannot find the file specified"):
		return codeNotFound, invalid("%v", err)
	case has("not a directory") && has("mount"):
		return codeNotFound, invalid("%v: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type", err)
	case has("permission denied", "not a directory", "is a directory", "exec format error"):
		return codeNotAllowed, invalid("%v", err)
	}
	return codeFailed, err
}

// createError is an error of the supervisor's Start.
type createError struct{ err error }

func (c createError) Error() string {
	return "failed to create task for container: " + trimClass(c.err)
}
func (c createError) Unwrap() error { return c.err }

// trimClass is the text of an error without the name of its class.
func trimClass(err error) string {
	text := err.Error()
	if class := errdefs.Resolve(err); class != nil {
		text = strings.TrimSuffix(text, ": "+class.Error())
	}
	return text
}

// launch prepares network, files, volumes and the configuration, and starts
// the task; on failure all of it is undone.
func (e *Engine) launch(ctx context.Context, u *unit, ph *phases) (st task.Status, err error) {
	var done undo
	defer func() {
		if err != nil {
			err = errors.Join(err, done.run(ctx))
		}
	}()
	joins, err := e.joins(u)
	if err != nil {
		return st, err
	}
	if joins.linkEnv, err = e.linkEnv(u.spec.Load()); err != nil {
		return st, err
	}
	if s := u.spec.Load(); s.HostConfig.IpcMode.IsShareable() {
		if joins.shm, err = e.shm.Open(s.ID, s.HostConfig.ShmSize); err != nil {
			return st, err
		}
		done.add(func(context.Context) error { return e.shm.Close(u.id) })
	}
	netCh := e.openNetwork(ctx, u)
	sources, verr := e.useVolumes(ctx, u, &done)
	net := <-netCh
	done.add(net.undo)
	if err := errors.Join(verr, net.err); err != nil {
		return st, firstOf(verr, net.err)
	}
	if net.ns != nil {
		defer net.ns.Close()
	}
	ph.end("network and volumes")
	files, err := e.writeFiles(u, net)
	if err != nil {
		return st, err
	}
	req, err := e.startRequest(ctx, u, sources, files, joins)
	if err != nil {
		return st, err
	}
	ph.end("files and spec")
	sf := task.StartFiles{NetNS: net.ns}
	attach := u.takeAttach()
	if len(attach) > 0 {
		sf.Attach, sf.AttachRequest = attach[0].conn, attach[0].req
		defer attach[0].conn.Close()
	}
	st, err = e.startTask(ctx, req, sf)
	ph.add("to the supervisor and back", st.Phases)
	if err != nil {
		for _, a := range attach[min(1, len(attach)):] {
			_ = a.conn.Close()
		}
		return st, createError{err}
	}
	if len(attach) > 1 {
		e.attachRest(ctx, u, attach[1:])
	}
	return st, nil
}

// startTask starts the task. If the supervisor is lost meanwhile, the next one
// knows whether the task was started.
func (e *Engine) startTask(ctx context.Context, req task.StartRequest, sf task.StartFiles) (task.Status, error) {
	var st task.Status
	first := true
	err := persist(func() (err error) {
		if !first {
			if st, err = e.o.Tasks.Status(ctx, req.ID); !errdefs.IsNotFound(err) {
				return err
			}
		}
		first = false
		st, err = e.o.Tasks.Start(ctx, req, sf)
		return err
	})
	if errdefs.IsAlreadyExists(err) { // left over from before a crash
		if derr := e.o.Tasks.Delete(ctx, req.ID, true); derr == nil {
			return e.o.Tasks.Start(ctx, req, sf)
		}
	}
	return st, err
}

// stopTask stops the task, also if the supervisor is replaced meanwhile.
func (e *Engine) stopTask(ctx context.Context, id string, sig int, timeout time.Duration) (task.Status, error) {
	var st task.Status
	err := persist(func() (err error) {
		st, err = e.o.Tasks.Stop(ctx, id, sig, timeout)
		return err
	})
	return st, err
}

// attempts bounds how many supervisors may be lost under one operation.
const attempts = 5

// lossNotice is how long it may take to see that a connection is dead.
const lossNotice = 20 * time.Millisecond

// persist repeats what may be repeated while the supervisor is lost. Calls wait
// by themselves for the next one, once the loss was seen.
func persist(f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if !errdefs.IsUnavailable(err) || n == attempts {
			return err
		}
		<-time.After(time.Duration(n) * lossNotice)
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// startRequest is the one message to the supervisor.
func (e *Engine) startRequest(ctx context.Context, u *unit, sources map[string]string, files []specs.Mount, joins joined) (task.StartRequest, error) {
	s, d := u.spec.Load(), e.defaults.Load()
	ms := files
	for _, m := range s.Mounts {
		ms = slices.DeleteFunc(ms, func(f specs.Mount) bool { return f.Destination == m.Destination })
	}
	for _, m := range s.Mounts {
		ms = append(ms, mounts.OCI(m, sources[m.Destination]))
	}
	slices.SortStableFunc(ms, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	cfg, err := spec.Build(spec.Input{
		Container: s, Mounts: ms, LinkEnv: joins.linkEnv, ShmSource: joins.shm,
		Defaults: spec.Defaults{NoNewPrivileges: d.NoNewPrivileges, Seccomp: d.Seccomp, Ulimits: d.Ulimits, AppArmor: d.AppArmor},
	})
	if err != nil {
		return task.StartRequest{}, err
	}
	if p := cfg.Process.ApparmorProfile; p != "" && p == d.AppArmor {
		if err := d.LoadAppArmor(); err != nil {
			return task.StartRequest{}, err
		}
	}
	root, err := e.o.Layers.Root(ctx, u.id)
	if err != nil {
		return task.StartRequest{}, fmt.Errorf("find the writable layer: %w", err)
	}
	h := s.HostConfig
	runtime, ok := d.Runtimes[h.Runtime]
	if !ok && h.Runtime != "" { // the configuration has changed since
		return task.StartRequest{}, invalid("unknown or invalid runtime name: %s", h.Runtime)
	}
	parent := h.CgroupParent
	if parent == "" {
		parent = d.CgroupParent
	}
	return task.StartRequest{
		Version: task.Protocol, ID: string(u.id), Spec: cfg, Root: root,
		User: s.Config.User, Groups: h.GroupAdd,
		Stdio: task.Stdio{
			Terminal: s.Config.Tty, OpenStdin: s.Config.OpenStdin, StdinOnce: s.Config.StdinOnce,
			Height: int(h.ConsoleSize[0]), Width: int(h.ConsoleSize[1]),
		},
		Log:          task.Log{Driver: h.LogConfig.Type, Path: s.LogPath, Options: h.LogConfig.Config, Attrs: logAttrs(s)},
		Restart:      restartPolicy(h.RestartPolicy),
		Init:         h.Init != nil && *h.Init,
		CgroupParent: parent, SystemdDriver: d.SystemdCgroup, Runtime: runtime,
		JoinPID: joins.pid, JoinIPC: joins.ipc, JoinNet: joins.net,
	}, nil
}

func restartPolicy(p apicontainer.RestartPolicy) task.RestartPolicy {
	return task.RestartPolicy{Name: string(p.Name), MaxRetries: p.MaximumRetryCount}
}

// logAttrs are the labels and variables that the log options ask for.
func logAttrs(s *container.Spec) map[string]string {
	opts := s.HostConfig.LogConfig.Config
	out := map[string]string{}
	for name := range strings.SplitSeq(opts["labels"], ",") {
		if v, ok := s.Config.Labels[name]; ok && name != "" {
			out[name] = v
		}
	}
	for name := range strings.SplitSeq(opts["env"], ",") {
		for _, kv := range s.Config.Env {
			if k, v, _ := strings.Cut(kv, "="); k == name && name != "" {
				out[k] = v
			}
		}
	}
	if tag := opts["tag"]; tag != "" {
		out["tag"] = tag
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// opened is a network that was opened for a start.
type opened struct {
	sandbox network.Sandbox
	ns      *os.File
	undo    func(context.Context) error
	err     error
}
