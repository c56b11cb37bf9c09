package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/task"
)

func request(name string, cmd ...string) container.CreateRequest {
	return container.CreateRequest{
		Name: name, Config: &apicontainer.Config{Image: "busybox", Cmd: cmd}, HostConfig: &apicontainer.HostConfig{},
	}
}

func create(t *testing.T, e *Engine, req container.CreateRequest) string {
	t.Helper()
	c, err := e.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return string(c.ID)
}

func status(t *testing.T, e *Engine, ref string) *apicontainer.State {
	t.Helper()
	c, err := e.Inspect(t.Context(), ref, false)
	if err != nil {
		t.Fatal(err)
	}
	return c.State
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	id := create(t, e, request("one", "sleep", "9"))
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id[:12]); !errdefs.IsNotModified(err) {
		t.Errorf("second start: %v", err)
	}
	if err := e.Delete(t.Context(), "one", container.DeleteRequest{}); !errdefs.IsConflict(err) {
		t.Errorf("remove while running: %v", err)
	}
	if err := w.tasks.Exit(id, 3); err != nil {
		t.Fatal(err)
	}
	if st := status(t, e, "one"); st.Status != "exited" || st.ExitCode != 3 || st.Running {
		t.Errorf("after the exit: %+v", st)
	}
	if n := w.nets.count(); n != 0 {
		t.Errorf("%d sandboxes are open after the exit", n)
	}
	if err := e.Delete(t.Context(), "one", container.DeleteRequest{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"container create", "container start", "container die", "container destroy",
	}
	if diff := cmp.Diff(want, w.bus.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	eventually(t, "layer removed", func() bool { return w.laid.count() == 0 })
}

// TestRemoveDuringProbe removes a container whose health check ends with it:
// the check must not wait for whoever removes and waits for it.
func TestRemoveDuringProbe(t *testing.T) {
	w := newWorld(t)
	begun := make(chan struct{})
	var once sync.Once
	w.exec = func(ctx context.Context) error {
		once.Do(func() { close(begun) })
		<-ctx.Done()
		return fmt.Errorf("the container has ended: %w", errdefs.ErrFailedPrecondition)
	}
	e, _ := w.engine()
	req := request("checked", "sleep", "9")
	req.Config.Healthcheck = &apicontainer.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Millisecond}
	id := create(t, e, req)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-begun
	removed := make(chan error, 1)
	go func() { removed <- e.Delete(t.Context(), id, container.DeleteRequest{Force: true}) }()
	eventually(t, "the container is removed", func() bool {
		select {
		case err := <-removed:
			if err != nil {
				t.Error(err)
			}
			return true
		default:
			return false
		}
	})
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	id := create(t, e, request("taken"))
	if _, err := e.Create(t.Context(), request("taken")); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), id) {
		t.Errorf("name in use: %v", err)
	}
	if _, err := e.Create(t.Context(), request("a/b")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
	if err := e.Rename(t.Context(), "taken", "other"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.index.find("taken"); !errdefs.IsNotFound(err) || err.Error() != "No such container: taken" {
		t.Errorf("old name: %v", err)
	}
	second := create(t, e, request("taken"))
	if _, err := e.Create(t.Context(), container.CreateRequest{Config: &apicontainer.Config{Image: "nope"}}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
	e.index.units["abc"], e.index.units["abd"] = e.index.get(container.ID(id)), e.index.get(container.ID(second))
	if _, err := e.index.find("ab"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("ambiguous prefix: %v", err)
	}
	delete(e.index.units, "abc")
	delete(e.index.units, "abd")
}

func TestAutoRemove(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	req := request("auto")
	req.HostConfig.AutoRemove = true
	req.Config.Volumes = map[string]struct{}{"/data": {}}
	id := create(t, e, req)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := w.tasks.Exit(id, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "container removed", func() bool { return e.index.get(container.ID(id)) == nil })
	eventually(t, "all released", func() bool { return w.laid.count()+w.nets.count()+w.vols.count() == 0 })
}

func TestStartFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
		is   func(error) bool
	}{
		{"missing", errdefs.ErrInvalidArgument.WithMessage(`exec: "x": executable file not found in $PATH`), 127, errdefs.IsInvalidArgument},
		{"not allowed", errdefs.ErrInvalidArgument.WithMessage(`exec: "/etc": permission denied`), 126, errdefs.IsInvalidArgument},
		{"engine", errdefs.ErrInternal.WithMessage("open log: no such file or directory"), 128, errdefs.IsInternal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			e, _ := w.engine()
			w.tasks.OnStart = func(task.StartRequest) error { return tc.err }
			id := create(t, e, request("cc"))
			err := e.Start(t.Context(), id)
			if !tc.is(err) || !strings.HasPrefix(err.Error(), "failed to create task for container: ") {
				t.Errorf("error: %v", err)
			}
			if st := status(t, e, id); st.ExitCode != tc.code || st.Status != "created" || st.Error == "" {
				t.Errorf("state: %+v", st)
			}
			if n := w.nets.count(); n != 0 {
				t.Errorf("%d sandboxes left", n)
			}
		})
	}
}

func TestNetworkFails(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	w.nets.fail = errdefs.ErrFailedPrecondition.WithMessage("port is already allocated")
	id := create(t, e, request("cc"))
	if err := e.Start(t.Context(), id); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("error: %v", err)
	}
	if _, ok := w.tasks.Request(id); ok {
		t.Error("a task was started")
	}
}

func TestDaemonAway(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	runs, ends := create(t, e, request("runs")), create(t, e, request("ends"))
	lost := create(t, e, request("lost"))
	req := request("auto")
	req.HostConfig.AutoRemove = true
	auto := create(t, e, req)
	for _, id := range []string{runs, ends, lost, auto} {
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	w.bus.take()
	for id, code := range map[string]int{ends: 7, auto: 0} {
		if err := w.tasks.Exit(id, code); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.tasks.Delete(t.Context(), lost, true); err != nil {
		t.Fatal(err)
	}
	e, _ = w.engine()
	if st := status(t, e, "runs"); !st.Running || st.Pid == 0 {
		t.Errorf("runs: %+v", st)
	}
	if st := status(t, e, "ends"); st.ExitCode != 7 || st.Running {
		t.Errorf("ends: %+v", st)
	}
	if st := status(t, e, "lost"); st.Running || st.ExitCode != unknownExit || st.Error == "" {
		t.Errorf("lost: %+v", st)
	}
	eventually(t, "auto removed", func() bool { return e.index.get(container.ID(auto)) == nil })
	if n := w.nets.count(); n != 1 {
		t.Errorf("%d sandboxes are open, want 1", n)
	}
}

// TestVolumesHeld: a new daemon knows which volumes its containers need.
func TestVolumesHeld(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	req := request("keeps")
	req.HostConfig.Binds = []string{"data:/data"}
	id := create(t, e, req)
	stop()
	w.vols.mu.Lock()
	clear(w.vols.users) // references are in memory only
	w.vols.mu.Unlock()
	w.engine()
	if got := w.vols.Users("data"); !slices.Equal(got, []string{id}) {
		t.Errorf("users of the volume: %v, want %s", got, id)
	}
}

func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	id := create(t, e, request("going"))
	u := e.index.get(container.ID(id))
	if _, err := e.beginRemove(t.Context(), u, false); err != nil {
		t.Fatal(err)
	}
	orphan := container.ID(strings.Repeat("f", 64))
	w.laid.layers[orphan] = true
	if err := os.Mkdir(e.dir(orphan), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tasks.Start(t.Context(), task.StartRequest{ID: string(orphan)}, task.StartFiles{}); err != nil {
		t.Fatal(err)
	}
	half := &container.Spec{ID: container.ID(strings.Repeat("e", 64)), Mounts: []container.Mount{{Name: "anon", Anonymous: true}}}
	if _, err := e.records.Intend(half); err != nil {
		t.Fatal(err)
	}
	w.vols.all["anon"] = &apivolume.Volume{Name: "anon"}
	w.vols.all["named"] = &apivolume.Volume{Name: "named"}
	stop()
	e, _ = w.engine()
	if w.vols.all["anon"] != nil || w.vols.all["named"] == nil {
		t.Errorf("volumes left: %v", w.vols.all)
	}
	if left, err := e.records.Intents(); len(left) > 0 || err != nil {
		t.Errorf("intents left: %v %v", left, err)
	}
	if _, err := e.index.find("going"); !errdefs.IsNotFound(err) {
		t.Errorf("a removal was not finished: %v", err)
	}
	if _, err := w.tasks.Status(t.Context(), string(orphan)); !errdefs.IsNotFound(err) {
		t.Errorf("a task without container lives on: %v", err)
	}
	eventually(t, "layers collected", func() bool { return w.laid.count() == 0 })
	left, err := filepath.Glob(filepath.Join(w.dir, "containers", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestUnheardLife: a container ran from start to end, and the daemon that had it
// started was killed before it wrote anything of that down.
func TestUnheardLife(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	kept, gone := create(t, e, request("kept")), request("gone")
	gone.HostConfig.AutoRemove = true
	removed := create(t, e, gone)
	stop()
	for _, id := range []string{kept, removed} {
		if _, err := w.tasks.Start(t.Context(), task.StartRequest{ID: id}, task.StartFiles{}); err != nil {
			t.Fatal(err)
		}
		if err := w.tasks.Exit(id, 4); err != nil {
			t.Fatal(err)
		}
	}
	e, _ = w.engine()
	if st := status(t, e, "kept"); st.Status != "exited" || st.ExitCode != 4 || st.StartedAt == "" {
		t.Errorf("got %+v", st)
	}
	eventually(t, "removed", func() bool { _, err := e.index.find("gone"); return errdefs.IsNotFound(err) })
	eventually(t, "its task, too", func() bool { _, err := w.tasks.Status(t.Context(), removed); return errdefs.IsNotFound(err) })
}

// TestRemovalNotBegun: the end of an AutoRemove container is written down, and the
// daemon was killed before its removal was.
func TestRemovalNotBegun(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	req := request("gone")
	req.HostConfig.AutoRemove = true
	create(t, e, req)
	u, err := e.index.find("gone")
	if err != nil {
		t.Fatal(err)
	}
	e.save(u, func(s *container.Status) { s.State, s.FinishedAt = container.StateExited, time.Now() })
	stop()
	e, _ = w.engine()
	eventually(t, "removed", func() bool { _, err := e.index.find("gone"); return errdefs.IsNotFound(err) })
}

// TestNeverStarted: an AutoRemove container was made, and the daemon ended before
// it was started.
func TestNeverStarted(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	req := request("gone")
	req.HostConfig.AutoRemove = true
	create(t, e, req)
	create(t, e, request("kept"))
	stop()
	e, _ = w.engine()
	eventually(t, "removed", func() bool { _, err := e.index.find("gone"); return errdefs.IsNotFound(err) })
	if st := status(t, e, "kept"); st.Status != "created" {
		t.Errorf("got %+v", st)
	}
}

func TestPolicyAtBoot(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	ids := map[string]string{}
	for _, p := range []apicontainer.RestartPolicyMode{"no", "always", "unless-stopped"} {
		for _, byUser := range []bool{false, true} {
			name := string(p)
			if byUser {
				name += "-stopped"
			}
			req := request(name)
			req.HostConfig.RestartPolicy.Name = p
			ids[name] = create(t, e, req)
			if err := e.Start(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if byUser {
				if err := e.Stop(t.Context(), name, container.StopRequest{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	stop()
	for _, id := range ids { // as after a reboot
		_ = w.tasks.Delete(t.Context(), id, true)
	}
	e, _ = w.engine()
	want := map[string]bool{"no": false, "no-stopped": false, "always": true, "always-stopped": true, "unless-stopped": true, "unless-stopped-stopped": false}
	for name, up := range want {
		if !up {
			continue
		}
		eventually(t, name+" runs", func() bool { return status(t, e, name).Running })
	}
	for name, up := range want {
		if got := status(t, e, name).Running; got != up {
			t.Errorf("%s: running %v, want %v", name, got, up)
		}
	}
}

// TestBootKeepsTheNetwork of a container that lives, also if the supervisor dies
// before it has told where that is.
func TestBootKeepsTheNetwork(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	ids := map[string]string{}
	for _, name := range []string{"lives", "ended"} {
		ids[name] = create(t, e, request(name))
		if err := e.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := w.tasks.Exit(ids["ended"], 0); err != nil {
		t.Fatal(err)
	}
	w.lost = errdefs.ErrUnavailable
	e, _ = w.engine()
	if got := w.nets.count(); got != 1 || !status(t, e, "lives").Running {
		t.Errorf("%d sandboxes, want 1", got)
	}
}

func TestWait(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	id := create(t, e, request("cc"))
	type answer struct {
		cond container.WaitCondition
		res  container.WaitResult
		err  error
	}
	ch := make(chan answer, 3)
	wait := func(cond container.WaitCondition) {
		begun := make(chan struct{})
		go func() {
			res, err := e.Wait(t.Context(), id, container.WaitRequest{Condition: cond, Begin: func() { close(begun) }})
			ch <- answer{cond, res, err}
		}()
		<-begun
	}
	wait("next-exit")
	wait("removed")
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := w.tasks.Exit(id, 4); err != nil {
		t.Fatal(err)
	}
	if a := <-ch; a.cond != "next-exit" || a.res.ExitCode != 4 || a.err != nil {
		t.Errorf("first answer: %+v", a)
	}
	if res, err := e.Wait(t.Context(), id, container.WaitRequest{}); err != nil || res.ExitCode != 4 {
		t.Errorf("wait for what ended: %+v %v", res, err)
	}
	if err := e.Delete(t.Context(), id, container.DeleteRequest{}); err != nil {
		t.Fatal(err)
	}
	if a := <-ch; a.cond != "removed" || a.res.ExitCode != 4 {
		t.Errorf("second answer: %+v", a)
	}
	if _, err := e.Wait(t.Context(), id, container.WaitRequest{}); !errdefs.IsNotFound(err) {
		t.Errorf("wait for what is gone: %v", err)
	}
}

func TestStartRequest(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	req := request("cc", "true")
	req.Config.Env = []string{"A=own", "B=2"}
	req.Config.User = "alice"
	req.HostConfig.Memory = 64 << 20
	id := create(t, e, req)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	got, _ := w.tasks.Request(id)
	env := []string{"PATH=/bin", "HOSTNAME=" + id[:12], "A=own", "B=2"}
	if diff := cmp.Diff(env, got.Spec.Process.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	if got.User != "alice" || *got.Spec.Linux.Resources.Memory.Limit != 64<<20 || *got.Spec.Linux.Resources.Memory.Swap != 128<<20 {
		t.Errorf("request: user %q memory %+v", got.User, got.Spec.Linux.Resources.Memory)
	}
	hosts, err := os.ReadFile(filepath.Join(e.dir(container.ID(id)), "hosts"))
	if err != nil || !strings.Contains(string(hosts), "10.0.0.2\t"+id[:12]) {
		t.Errorf("hosts: %s %v", hosts, err)
	}
}

// TestLostWhileRejoining: what the supervisor knows is being applied when it is
// lost again, and a container is owned by somebody who waits for the next one.
func TestLostWhileRejoining(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	id, other := create(t, e, request("busy")), create(t, e, request("other"))
	for _, id := range []string{id, other} {
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := w.tasks.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u := e.index.get(container.ID(id))
	u.owner.mu.Lock()
	lost := make(chan struct{})
	inv.Lost = lost
	ended := make(chan error, 1)
	go func() {
		_, err := e.takeInventory(t.Context(), inv)
		ended <- err
	}()
	close(lost)
	if err := <-ended; !errors.Is(err, errLostAgain) {
		t.Errorf("got %v", err)
	}
	u.owner.mu.Unlock()
	inv.Lost = nil
	if _, err := e.takeInventory(t.Context(), inv); err != nil {
		t.Error(err)
	}
}

// TestWaitWithoutContainer: somebody waits for a container that was removed while
// there was no supervisor.
func TestWaitWithoutContainer(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	here := create(t, e, request("here"))
	var deleted deletions
	e.DeleteStrays(t.Context(), &deleted, task.Inventory{Waits: []string{here, "gone"}})
	if want := (deletions{"gone"}); !slices.Equal(deleted, want) {
		t.Errorf("deleted %v, want %v", deleted, want)
	}
}

type deletions []string

func (d *deletions) Delete(_ context.Context, id string, _ bool) error {
	*d = append(*d, id)
	return nil
}
