// Package keeper is the helper that nothing should ever kill: it holds
// duplicates of the other helpers' descriptors, starts them again when they
// die, and reaps the containers that a dead supervisor left behind. It decides
// nothing and knows nothing of containers.
package keeper

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/keeper/successor"
)

const (
	lockFile  = "keeper.lock"
	stateFile = "helpers.json"
	// LogFile receives what the helpers say.
	LogFile = "helpers.log"
	// maxLog is the size at which LogFile is emptied (bytes).
	maxLog = 1 << 20
)

// keeper is the process's state.
type keeper struct {
	execRoot, dataRoot string
	ready              *os.File // inherited by the first supervisor, which reports through it
	log                *slog.Logger
	exits              *exits.Recorder

	mu       sync.Mutex // guards the fields below and the children's
	roles    map[string]*role
	conns    map[*conn]struct{}
	stopping bool
	stopped  chan struct{}
	// parked is closed when connections are to be read again, after an upgrade
	// that failed; nil while there is none.
	parked     chan struct{}
	acceptIdle bool

	listener *net.UnixListener
	lockFile *os.File
	// upgrades are programs to become, and who asked.
	upgrades chan upgrade
}

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("helper", "keeper")
	if err := run(args, log); err != nil {
		log.Error("keeper ends", "err", err)
		return 1
	}
	return 0
}

func run(args []string, log *slog.Logger) error {
	fs := flag.NewFlagSet("keeper", flag.ContinueOnError)
	execRoot := fs.String("exec-root", "", "directory of sockets and task state")
	dataRoot := fs.String("data-root", "", "the daemon's data directory")
	readyFD := fs.Int("ready-fd", -1, "descriptor to which the supervisor writes when it is ready")
	resumeFD := fs.Int(resumeFlag, -1, "descriptor of what the program before left")
	takes := fs.Int(successor.TakesFlag, -1, "only tell whether state of this version is gone on with")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *takes >= 0 {
		return successor.Takes("keeper", *takes, oldestState, stateVersion)
	}
	if *execRoot == "" {
		return errors.New("--exec-root is missing")
	}
	k := &keeper{execRoot: *execRoot, dataRoot: *dataRoot, log: log, roles: map[string]*role{}, conns: map[*conn]struct{}{},
		stopped: make(chan struct{}), upgrades: make(chan upgrade)}
	if *resumeFD >= 0 {
		frugal()
		return k.resume(*resumeFD)
	}
	closeInherited(*readyFD)
	frugal()
	if *readyFD >= 0 {
		unix.CloseOnExec(*readyFD)
		k.ready = os.NewFile(uintptr(*readyFD), "ready")
	}
	var err error
	if k.lockFile, err = k.lock(); err != nil {
		return err
	}
	defer k.lockFile.Close()
	return k.serve()
}

// frugal trades speed, of which the keeper needs none, for memory, and lets it
// hold as many descriptors as it may.
func frugal() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	timerslack.Relax()
	RaiseFileLimit()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU)
}

// closeInherited closes what whoever started us forgot to mark close-on-exec,
// such as a shell's pipe that somebody waits to be closed: we live long.
func closeInherited(except int) {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, d := range all {
		fd, err := strconv.Atoi(d.Name())
		if err != nil || fd <= 2 || fd == except {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// RaiseFileLimit lets the process open as many files as the kernel grants.
func RaiseFileLimit() {
	const wanted = 1 << 20
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return
	}
	if l.Max < wanted && unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: wanted, Max: wanted}) == nil {
		return
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: l.Max, Max: l.Max})
}

// lock makes sure that an exec root has one keeper. The lock is of the kind
// that tells others who holds it, and that ends with the process: no child has it.
func (k *keeper) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(k.execRoot, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return nil, errors.Join(fmt.Errorf("another keeper has %s: %w", k.execRoot, err), f.Close())
	}
	return f, nil
}

func (k *keeper) serve() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	var err error
	if k.exits, err = exits.NewRecorder(k.execRoot); err != nil {
		return fmt.Errorf("exit records: %w", err)
	}
	if k.listener, err = k.listen(); err != nil {
		return err
	}
	k.mu.Lock()
	for _, name := range []string{supervisor, "net"} {
		k.roles[name] = &role{name: name, sets: map[string]fdstore.Set{}}
	}
	k.adopt()
	k.mu.Unlock()
	return k.loop()
}

// loop runs what does not run yet, and whatever comes then.
func (k *keeper) loop() error {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	go k.accept(k.listener)
	k.mu.Lock()
	for _, r := range k.roles {
		if r.pid == 0 {
			k.start(r)
		}
	}
	k.save()
	k.mu.Unlock()
	k.reap() // who died while nobody listened
	for {
		select {
		case <-chld:
			k.reap()
		case u := <-k.upgrades:
			k.upgrade(u)
		case <-k.stopped:
			_ = k.listener.Close()
			k.cleanUp()
			return nil
		}
	}
}

// listen replaces the socket in one step, so that a helper waiting for a new
// keeper sees it appear when it works.
func (k *keeper) listen() (*net.UnixListener, error) {
	path := filepath.Join(k.execRoot, fdstore.Socket)
	tmp := path + ".new"
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: tmp, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// helperPids is the content of stateFile: who runs, for the next keeper.
type helperPids struct {
	Version int                `json:"version"`
	Keeper  int                `json:"keeper"`
	Helpers map[string]process `json:"helpers"`
}

type process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// save writes who runs. Called with k.mu held.
func (k *keeper) save() {
	st := helperPids{Version: 1, Keeper: os.Getpid(), Helpers: map[string]process{}}
	for _, r := range k.roles {
		st.Helpers[r.name] = process{r.pid, r.started}
	}
	b, err := json.Marshal(st)
	if err != nil {
		return
	}
	path := filepath.Join(k.execRoot, stateFile)
	if err := errors.Join(os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path)); err != nil {
		k.log.Warn("cannot save the helpers' pids", "err", err)
	}
}

// adopt takes over helpers that an earlier keeper started. Called with k.mu held.
func (k *keeper) adopt() {
	b, err := os.ReadFile(filepath.Join(k.execRoot, stateFile))
	if err != nil {
		return
	}
	var st helperPids
	if json.Unmarshal(b, &st) != nil || st.Version != 1 {
		return
	}
	for name, p := range st.Helpers {
		r := k.roles[name]
		if r == nil || p.Pid <= 0 {
			continue
		}
		if fd, same := exits.Open(p.Pid, p.Start); same {
			r.pid, r.started, r.adopted = p.Pid, p.Start, true
			go k.watch(r, fd, p.Pid)
		}
	}
}

// cleanUp removes everything that belongs to the helpers.
func (k *keeper) cleanUp() {
	_ = k.exits.Close()
	exits.Remove(k.execRoot)
	for _, n := range []string{fdstore.Socket, "supervisor.sock", "supervisor.sock.hidden", fdstore.SupervisorLock, "net.sock", stateFile, LogFile, "events", "start.lock", lockFile} {
		_ = os.Remove(filepath.Join(k.execRoot, n))
	}
	_ = os.RemoveAll(filepath.Join(k.execRoot, "tasks"))
	_ = os.Remove(filepath.Join(k.execRoot, "foreign")) // of other runtimes' containers, none of which is left
	_ = os.Remove(k.execRoot)                           // only if nothing else is in it
}
