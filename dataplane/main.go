// Package dataplane is the net helper: what of the network must outlive the
// daemon and needs a process. It answers names at 127.0.0.11, holds the
// published ports of the host, and carries the connections that the kernel
// does not translate. The daemon tells it what each sandbox is to have; if it
// dies, the keeper starts it again with its descriptors.
package dataplane

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/wherry-engine/wherry/dataplane/wire"
	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/keeper/successor"
)

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("helper", "net")
	fs := flag.NewFlagSet("net", flag.ContinueOnError)
	execRoot := fs.String("exec-root", "", "directory of sockets and state")
	_ = fs.String("data-root", "", "the daemon's data directory")
	takes := fs.Int(successor.TakesFlag, -1, "only tell whether state of this version is gone on with")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *takes >= 0 {
		if err := successor.Takes("net helper", *takes, stateVersion, stateVersion); err != nil {
			log.Error("upgrade", "err", err)
			return 1
		}
		return 0
	}
	if *execRoot == "" {
		log.Error("--exec-root is missing")
		return 2
	}
	debug.SetGCPercent(50)
	timerslack.Relax()
	keeper.RaiseFileLimit()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, *execRoot, log); err != nil {
		log.Error("net helper ends", "err", err)
		return 1
	}
	return 0
}

// Run serves an exec root until the context ends; then everything is released.
func Run(ctx context.Context, execRoot string, log *slog.Logger) error {
	st, err := openStore(execRoot, log)
	if err != nil {
		return err
	}
	s := newState(log, st)
	if err := s.restore(); err != nil {
		return err
	}
	path := filepath.Join(execRoot, wire.Socket)
	l, err := listen(path)
	if err != nil {
		return err
	}
	sv := &server{s: s, conns: map[*net.UnixConn]struct{}{}}
	following, unfollow := context.WithCancel(ctx)
	defer unfollow()
	go st.follow(following, execRoot, s)
	retire, done := signal.NotifyContext(ctx, keeper.Retire)
	defer done()
	stop := context.AfterFunc(retire, func() { _ = l.Close() })
	defer stop()
	sv.accept(l)
	sv.close()
	if ctx.Err() == nil && retire.Err() != nil { // another one takes over
		unfollow()
		return s.retire(ctx)
	}
	s.close()
	return errors.Join(ignoreMissing(os.Remove(path)), os.RemoveAll(st.dir))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// listen replaces the socket in one step.
func listen(path string) (*net.UnixListener, error) {
	tmp := path + ".new"
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// server serves daemons, of which there is one except during a change.
type server struct {
	s  *state
	wg sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*net.UnixConn]struct{}
}

func (sv *server) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return // closed at the end
		}
		sv.mu.Lock()
		if sv.closed {
			_ = c.Close()
		} else {
			sv.conns[c] = struct{}{}
			sv.wg.Add(1)
			go sv.handle(c)
		}
		sv.mu.Unlock()
	}
}

func (sv *server) close() {
	sv.mu.Lock()
	sv.closed = true
	for c := range sv.conns {
		_ = c.Close()
	}
	sv.mu.Unlock()
	sv.wg.Wait()
}

// handle serves one daemon. A message that is not understood ends the connection.
func (sv *server) handle(uc *net.UnixConn) {
	defer sv.wg.Done()
	defer func() {
		sv.mu.Lock()
		delete(sv.conns, uc)
		sv.mu.Unlock()
		_ = uc.Close()
	}()
	c := wire.NewConn(uc)
	var pending []int
	defer func() { wire.CloseAll(pending) }()
	for {
		var req wire.Request
		files, err := c.Read(&req)
		if err != nil {
			return
		}
		pending = append(pending, files...)
		if req.Op == wire.OpFiles {
			continue
		}
		mine := pending
		pending = nil
		if err := c.Write(sv.obey(req, mine)); err != nil {
			return
		}
	}
}

func (sv *server) obey(req wire.Request, files []int) wire.Response {
	var err error
	switch {
	case req.Op == wire.OpHello && req.Version >= wire.MinVersion && req.Version <= wire.Version:
		wire.CloseAll(files)
		return wire.Response{Version: req.Version, Sandboxes: sv.s.list()}
	case req.Op == wire.OpPut && req.Sandbox != nil:
		err = sv.s.put(*req.Sandbox, files)
	case req.Op == wire.OpDrop:
		wire.CloseAll(files)
		err = sv.s.drop(req.ID)
	default:
		wire.CloseAll(files)
		err = errors.New("unknown request " + req.Op)
	}
	if err != nil {
		return wire.Response{Error: err.Error()}
	}
	return wire.Response{}
}
