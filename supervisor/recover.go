package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/task"
)

// recover rebuilds the table from the journal and the keeper's descriptors.
// What happened meanwhile is found by the ordinary ways: a dead process has a
// readable pidfd, and full pipes are readable too.
func (s *Supervisor) recover(ctx context.Context) error {
	list, err := s.keep.all()
	if err != nil {
		return fmt.Errorf("descriptors: %w", err)
	}
	sets := make(map[string]*fdstore.Set, len(list))
	for i := range list {
		sets[list[i].Name] = &list[i]
	}
	if s.spool, err = openSpool(take(sets[spoolSet], []string{spoolSet}, spoolSet)); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.keep.put(spoolSet, nil, int(s.spool.f.Fd()))
	gone := s.takeHandover(sets)
	s.epoch = gone.Epoch
	s.replaced = !gone.Upgraded && sets[spoolSet] != nil
	recorded, err := exits.Read(s.execRoot)
	if err != nil {
		s.log.Error("cannot read the exit records", "err", err)
	}
	for _, e := range recorded {
		s.keep.exited.note(e)
	}
	ids, leftovers, err := s.journal.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.recoverTask(ctx, id, sets, gone); err != nil {
			s.log.Error("cannot recover a task", "task", id, "err", err)
		}
	}
	for _, id := range leftovers {
		s.cleanLeftover(ctx, id)
	}
	s.spool.dropLeft()
	for name, set := range sets {
		switch {
		case strings.HasPrefix(name, "exec/"):
			s.recoverExec(set, gone)
		case strings.HasPrefix(name, waitPrefix):
			s.recoverWait(set)
		}
	}
	s.rejoinRest(gone)
	s.rememberExecs(gone)
	s.reapOthers()
	for name, set := range sets { // what nobody claimed
		claimed := false
		for _, fd := range set.Files {
			if fd < 0 {
				claimed = true
			} else {
				_ = unix.Close(fd)
			}
		}
		if !claimed {
			s.keep.drop(name)
		}
	}
	return nil
}

// take returns the descriptor of a name in a set, -1 if there is none.
func take(set *fdstore.Set, names []string, name string) int {
	if set == nil {
		return -1
	}
	for i, n := range names {
		if n == name && i < len(set.Files) {
			fd := set.Files[i]
			set.Files[i] = -1
			return fd
		}
	}
	return -1
}

// recoverTask makes the entry of one task of the journal.
func (s *Supervisor) recoverTask(ctx context.Context, id string, sets map[string]*fdstore.Set, gone *left) error {
	var names taskSet
	set := sets[setName(id)]
	if set != nil {
		if err := json.Unmarshal(set.Meta, &names); err != nil {
			return err
		}
	}
	st, err := s.journal.loadStatus(id)
	if err != nil {
		// It was being created. Its init, if there is one, waits for a
		// handshake that never comes, and ends.
		if fd := take(set, names.Names, "pidfd"); fd >= 0 {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			_ = unix.Close(fd)
		}
		return s.forgetUnborn(ctx, id)
	}
	t := newEntry(s, id, st.Runtime, st.Systemd)
	t.st, t.start, t.policy, t.stdio = st.Status, st.Start, st.Restart, st.Stdio
	t.backoff = msec(st.BackoffMS)
	t.dies, t.shared, t.noStdin, t.stopping = st.DieWithOwner, st.SharedPid, st.StdinClosed, st.Status.Stopped
	t.netns = take(set, names.Names, "netns")
	if r := sets[rootSet(id)]; st.HasRoot && r != nil && len(r.Files) == 1 {
		var meta rootMeta
		if len(r.Meta) > 0 {
			if err := json.Unmarshal(r.Meta, &meta); err != nil {
				return err
			}
		}
		s.roots.adopt(id, os.NewFile(uintptr(r.Files[0]), "root"), meta)
		r.Files[0] = -1
		t.hasRoot = true
	}
	s.mu.Lock()
	s.tasks[id] = t
	s.mu.Unlock()
	switch t.st.State {
	case task.Running, task.Paused:
		return t.readopt(ctx, set, names.Names, gone)
	case task.Exited:
		t.deleteCgroup(ctx, t.st.Cgroup) // it may have been under way
		t.releaseRoot()
	case task.Restarting:
		t.deleteCgroup(ctx, t.st.Cgroup)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.scheduleLocked()
	}
	return nil
}

// forgetUnborn removes what is left of a task that was being created.
func (s *Supervisor) forgetUnborn(ctx context.Context, id string) error {
	req, err := s.journal.loadRequest(id, s.seccomp.decode)
	if err == nil {
		cgroup, rt := cgroupOf(req), s.runtimeFor(id, req.Runtime, req.SystemdDriver)
		if err := rt.KillAll(cgroup, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			s.log.Warn("cannot kill what is left of a start", "task", id, "err", err)
		}
		if err := rt.DeleteCgroup(ctx, cgroup); err != nil {
			s.log.Warn("cannot remove a cgroup", "task", id, "err", err)
		}
	}
	return s.journal.removeRequest(id)
}

// readopt goes on with a task whose process may still run.
func (t *taskEntry) readopt(ctx context.Context, set *fdstore.Set, names []string, gone *left) error {
	s := t.s
	t.pidfd = take(set, names, "pidfd")
	if t.pidfd < 0 {
		if fd, same := exits.Open(t.st.Pid, t.start); same {
			t.pidfd = fd
		}
	}
	p := &pipes{stdin: take(set, names, "stdin"), stdout: take(set, names, "stdout"), stderr: take(set, names, "stderr")}
	req, err := s.journal.loadRequest(t.id, s.seccomp.decode)
	if err != nil {
		return err
	}
	t.spec = execSpec(req.Spec)
	if t.netns < 0 && req.JoinNet == "" && hasNamespace(req.Spec, specs.NetworkNamespace) {
		t.netns = t.findNetNS()
	}
	sink, err := s.openSink(t.id, req.Log)
	if err == nil {
		err = sink.recover(ctx)
	}
	if err != nil {
		s.log.Error("cannot go on with a log", "task", t.id, "err", err)
	}
	if sink != nil {
		t.resumeLog(sink, gone, set != nil)
	}
	t.io = s.newIOSet(t.id, "", t.stdio, p, sink)
	t.io.onDetach, t.io.onStdinClosed = t.detachedClient, t.stdinClosed
	s.rejoin(gone, t.io) // before it is read
	if t.pidfd < 0 {     // it ended while nobody held on to it
		go t.ended()
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked() // to this keeper, which may be a new one
	if t.dies {
		t.stopping, t.st.Stopped = true, true // its owner cannot be connected
		_ = t.sendSignal(int(unix.SIGKILL))
	}
	if err := t.io.watch(); err != nil {
		return err
	}
	t.exitTok, err = s.poll.add(t.pidfd, unix.EPOLLIN, func(uint32) { t.ended() })
	return err
}

// findNetNS opens the network namespace of a task's process, which the keeper was
// killed with. -1 if that has ended.
func (t *taskEntry) findNetNS() int {
	if t.pidfd < 0 {
		return -1
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", t.st.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if unix.PidfdSendSignal(t.pidfd, 0, nil, 0) != nil { // perhaps it was another's
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// resumeLog goes on with what is known of a log, and says in it what is not.
func (t *taskEntry) resumeLog(sink *sink, gone *left, streams bool) {
	sink.dropped.Store(t.st.DroppedBytes)
	sink.last, sink.onTrouble = t.st.LogError, t.logTrouble
	switch {
	case gone.Upgraded:
	case !streams:
		const text = "supervisor and keeper were killed, and the container's streams with them: what it wrote last may be missing, and nothing that it writes from here on is logged"
		sink.note("[wherry] " + text)
		sink.failed(errors.New(text))
		t.s.replaced = true
	case t.st.LogStalled:
		sink.note("[wherry] the supervisor was killed while the log could not be written: an unknown amount of output is missing here")
	case sink.queued:
		sink.note("[wherry] the supervisor was killed: output that waited to be logged, as mode=non-blocking has it, may be missing here")
	}
}

// recoverExec goes on with an exec. Unless an upgrade has left its client, that
// is gone; its output is read and dropped, so that it runs to its end.
func (s *Supervisor) recoverExec(set *fdstore.Set, gone *left) {
	var meta execSet
	if json.Unmarshal(set.Meta, &meta) != nil {
		return
	}
	t, err := s.get(meta.Task)
	if err != nil {
		return
	}
	e := &execEntry{t: t, id: meta.Exec, pid: meta.Pid, start: meta.Start, pidfd: take(set, meta.Names, "pidfd")}
	if e.pidfd < 0 {
		return
	}
	p := &pipes{stdin: take(set, meta.Names, "stdin"), stdout: take(set, meta.Names, "stdout"), stderr: take(set, meta.Names, "stderr")}
	e.io = s.newIOSet(t.id, e.id, meta.Stdio, p, nil)
	e.io.onStdinClosed = func() { t.mu.Lock(); defer t.mu.Unlock(); e.leaveLocked() }
	e.io.onDetach = t.detachedClient
	s.rejoin(gone, e.io)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.execs == nil {
		t.execs = map[string]*execEntry{}
	}
	t.execs[e.id] = e
	if err := e.io.watch(); err != nil {
		s.log.Error("cannot go on with an exec's streams", "task", t.id, "err", err)
	}
	if e.tok, err = s.poll.add(e.pidfd, unix.EPOLLIN, func(uint32) { e.ended() }); err != nil {
		s.log.Error("cannot go on with an exec", "task", t.id, "err", err)
	}
}

// recoverWait goes on with a wait request, or answers it if its condition was
// met before its client could be told. It is entered anew: its set is dropped.
func (s *Supervisor) recoverWait(set *fdstore.Set) {
	var meta waitSet
	fd := take(set, []string{"conn"}, "conn")
	if json.Unmarshal(set.Meta, &meta) != nil || fd < 0 {
		return
	}
	s.keep.drop(set.Name)
	t, err := s.get(meta.Task)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.active() && meta.Cond != task.WaitRemoved {
			writeWaitResult(fd, t.st.ExitCode)
			return
		}
	}
	if err := s.waits.add(meta.Task, meta.Cond, fd, true); err != nil {
		s.log.Error("cannot go on with a wait", "task", meta.Task, "err", err)
		_ = unix.Close(fd)
	}
}

// cleanLeftover finishes the removal of a task.
func (s *Supervisor) cleanLeftover(ctx context.Context, id string) {
	st, err := s.journal.loadStatus(id)
	if err == nil && st.Status.Cgroup != "" {
		if err := s.runtimeFor(id, st.Runtime, st.Systemd).DeleteCgroup(ctx, st.Status.Cgroup); err != nil {
			s.log.Warn("cannot remove a cgroup", "task", id, "err", err)
		}
	}
	if err := s.journal.removeStatus(id); err != nil {
		s.log.Error("cannot clean the journal", "task", id, "err", err)
	}
}
