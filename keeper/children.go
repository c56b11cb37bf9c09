package keeper

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
)

// supervisor is the role of the helper that the exec root has a lock for.
const supervisor = "supervisor"

// role is one of the helpers that the keeper runs; keeper.mu guards it.
type role struct {
	name    string
	pid     int // 0 while it does not run
	started uint64
	since   time.Time
	delay   time.Duration // before the next start, if it dies young
	conn    *conn
	sets    map[string]fdstore.Set
	adopted bool // not our child
	program string
	// retired are pids of helpers that end their connections and serve nothing new.
	retired map[int]bool
}

// retire remembers that a child is on its way out. Called with k.mu held.
func (r *role) retire(pid int) {
	if r.retired == nil {
		r.retired = map[int]bool{}
	}
	r.retired[pid] = true
}

const (
	firstDelay = 20 * time.Millisecond
	maxDelay   = time.Second
	// grown is how long a helper must live for its death to be an accident and not a habit.
	grown = 3 * time.Second
	// patience is how long helpers may take to end.
	patience = 5 * time.Second
)

// start runs a helper. Called with k.mu held, so that its death cannot be
// seen before its pid is known.
func (k *keeper) start(r *role) {
	if k.stopping {
		return
	}
	k.boundLog()
	argv := []string{os.Args[0], r.name, "--exec-root", k.execRoot, "--data-root", k.dataRoot}
	files := []*os.File{nil, os.Stdout, os.Stderr}
	if r.name == supervisor && k.ready != nil {
		argv = append(argv, "--ready-fd", "3")
		files = append(files, k.ready)
	}
	null, err := os.Open(os.DevNull)
	if err == nil {
		files[0] = null
		defer null.Close()
	}
	program := r.program
	if program == "" {
		program = Program()
	}
	r.program = ""
	p, err := os.StartProcess(program, argv, &os.ProcAttr{
		Dir: "/", Files: files, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		k.log.Error("cannot start helper", "role", r.name, "err", err)
		k.later(r)
		return
	}
	if r.name == supervisor && k.ready != nil {
		_ = k.ready.Close()
		k.ready = nil
	}
	r.pid, r.since, r.adopted = p.Pid, time.Now(), false
	r.started, _ = exits.StartTime(p.Pid)
	_ = p.Release() // reap waits for it
	k.save()
}

// Program returns what to execute for a helper: our own program as it is on
// disk now, be it a newer one (versions next to each other understand each
// other), or what we run ourselves if it is gone.
func Program() string {
	path, err := os.Executable()
	if err == nil && unix.Access(path, unix.X_OK) == nil {
		return path
	}
	return "/proc/self/exe"
}

// died notes a helper's death and starts it again. Called with k.mu held.
func (k *keeper) died(r *role, how string) {
	k.log.Warn("helper died", "role", r.name, "pid", r.pid, "how", how)
	r.pid = 0
	if k.stopping {
		k.checkStopped()
		return
	}
	if time.Since(r.since) > grown {
		r.delay = 0
		k.start(r)
		return
	}
	k.later(r)
}

// later starts a helper after the back-off. Called with k.mu held.
func (k *keeper) later(r *role) {
	wait := r.delay
	r.delay = min(max(2*r.delay, firstDelay), maxDelay)
	if wait == 0 {
		k.start(r)
		return
	}
	time.AfterFunc(wait, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if r.pid == 0 {
			k.start(r)
		}
	})
}

// reap collects every dead child: helpers, and processes of containers whose
// supervisor died.
func (k *keeper) reap() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		pid := siginfoPid(&info)
		if err != nil || pid == 0 {
			return
		}
		start, _ := exits.StartTime(pid) // before its number can be reused
		k.mu.Lock()
		var ws unix.WaitStatus
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WALL, nil)
		if err == nil && got == pid {
			k.ended(exits.Exit{Pid: pid, Start: start, Code: exits.CodeOf(ws)})
		}
		k.mu.Unlock()
	}
}

// ended handles one reaped process. Called with k.mu held.
func (k *keeper) ended(e exits.Exit) {
	for _, r := range k.roles {
		if r.pid == e.Pid {
			k.died(r, fmt.Sprintf("exit code %d", e.Code))
			return
		}
		if r.retired[e.Pid] {
			delete(r.retired, e.Pid)
			return
		}
	}
	if err := k.exits.Add(e); err != nil {
		k.log.Error("cannot record an exit", "pid", e.Pid, "err", err)
	}
	if c := k.roles[supervisor].conn; c != nil {
		c.send(fdstore.Message{Op: "exit", Exit: &e})
	}
}

// watch waits for the death of a helper that is not our child.
func (k *keeper) watch(r *role, pidfd, pid int) {
	defer unix.Close(pidfd)
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); err != unix.EINTR {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.pid == pid {
		k.died(r, "not our child")
	}
}

// stop ends the other helpers, then the keeper.
func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return
	}
	k.stopping = true
	k.signal(syscall.SIGTERM)
	time.AfterFunc(patience, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.signal(syscall.SIGKILL)
	})
	k.checkStopped()
}

// signal reaches every running helper. Called with k.mu held.
func (k *keeper) signal(sig syscall.Signal) {
	for _, r := range k.roles {
		if r.pid > 0 {
			_ = unix.Kill(r.pid, sig)
		}
		for pid := range r.retired {
			_ = unix.Kill(pid, sig)
		}
	}
}

// checkStopped ends the keeper when no helper is left. Called with k.mu held.
func (k *keeper) checkStopped() {
	for _, r := range k.roles {
		if r.pid > 0 {
			return
		}
	}
	select {
	case <-k.stopped:
	default:
		close(k.stopped)
	}
}

// boundLog empties the helpers' log when it has grown too large; they append.
func (k *keeper) boundLog() {
	if fi, err := os.Stderr.Stat(); err == nil && fi.Mode().IsRegular() && fi.Size() > maxLog {
		_ = os.Stderr.Truncate(0)
	}
}
