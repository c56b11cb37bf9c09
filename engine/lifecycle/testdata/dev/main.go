package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/api"
	"github.com/wherry-engine/wherry/api/containers"
	"github.com/wherry-engine/wherry/engine/lifecycle"
	"github.com/wherry-engine/wherry/events/bus"
	"github.com/wherry-engine/wherry/image/store"
	"github.com/wherry-engine/wherry/internal/state"
	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/registry/client"
	"github.com/wherry-engine/wherry/snapshot/overlay"
	"github.com/wherry-engine/wherry/task/remote"
	"github.com/wherry-engine/wherry/volume/local"
)

type fakeNet struct {
	mu sync.Mutex
	m  map[network.SandboxID]network.Sandbox
}

func (f *fakeNet) Open(ctx context.Context, req network.SandboxRequest) (network.Sandbox, *os.File, error) {
	var ns *os.File
	ch := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = netns.Open()
		}
		ch <- err
	}()
	if err := <-ch; err != nil {
		return network.Sandbox{}, nil, err
	}
	sb := network.Sandbox{ID: req.ID, ResolvConf: []byte("nameserver 1.1.1.1\n")}
	f.mu.Lock()
	f.m[req.ID] = sb
	f.mu.Unlock()
	return sb, ns, nil
}
func (f *fakeNet) Close(ctx context.Context, id network.SandboxID) error {
	f.mu.Lock()
	delete(f.m, id)
	f.mu.Unlock()
	return nil
}
func (f *fakeNet) Get(ctx context.Context, id network.SandboxID) (network.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.m[id]
	if !ok {
		return sb, errdefs.ErrNotFound
	}
	return sb, nil
}
func (f *fakeNet) Connect(ctx context.Context, id network.SandboxID, n *os.File, ep network.EndpointRequest) (network.Endpoint, error) {
	return network.Endpoint{}, nil
}
func (f *fakeNet) Disconnect(ctx context.Context, id network.SandboxID, n *os.File, ref string, force bool) error {
	return nil
}
func (f *fakeNet) Rename(ctx context.Context, id network.SandboxID, name string) error { return nil }
func (f *fakeNet) Restore(ctx context.Context, live map[network.SandboxID]*os.File) error {
	for id := range live {
		f.m[id] = network.Sandbox{ID: id}
	}
	return nil
}

type nets struct{}

func (nets) Create(ctx context.Context, req network.CreateRequest) (apinetwork.CreateResponse, error) {
	return apinetwork.CreateResponse{}, errdefs.ErrNotImplemented
}
func (nets) Get(ctx context.Context, ref string) (apinetwork.Inspect, error) {
	return apinetwork.Inspect{}, errdefs.ErrNotFound
}
func (nets) List(ctx context.Context) ([]apinetwork.Inspect, error) { return nil, nil }
func (nets) Delete(ctx context.Context, ref string) error           { return nil }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

type prog struct{}

func (prog) Update(id, action string, current, total int64) {}
func (prog) Status(id, message string)                      {}
func (prog) Aux(v any)                                      {}

func main() {
	root, exec, sock, rt := os.Args[1]+"/data", os.Args[1]+"/run", os.Args[1]+"/w.sock", os.Args[2]
	must(os.MkdirAll(root, 0o755))
	must(os.MkdirAll(exec, 0o755))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	st, err := state.Open(state.Options{Dir: root, Logger: log})
	must(err)
	reg, err := client.New(client.Options{Logger: log})
	must(err)
	b := bus.New()
	imgs, err := store.Open(store.Options{Root: root, SnapshotterName: "overlayfs", Registry: reg, Logger: log, Builtin: map[string]func() (io.ReadCloser, error){}})
	must(err)
	layers, err := overlay.New(overlay.Options{Root: filepath.Join(root, "layers"), Chains: imgs, Logger: log})
	must(err)
	must(os.MkdirAll(root+"/volumes", 0o755))
	vols, err := local.Open(local.Options{Dir: filepath.Join(root, "volumes"), State: st, Events: b, Logger: log})
	must(err)
	if len(os.Args) > 3 {
		f, err := os.Open(os.Args[3])
		must(err)
		must(imgs.Load(ctx, f, nil, prog{}))
		f.Close()
	}
	tasks, err := remote.Ensure(ctx, remote.Options{Runtime: rt, ExecRoot: exec, DataRoot: root, Logger: log})
	must(err)
	fn := &fakeNet{m: map[network.SandboxID]network.Sandbox{}}
	e, err := lifecycle.New(lifecycle.Options{
		DataRoot: root, State: st, Tasks: tasks, Images: imgs, Transfer: imgs, Layers: layers, Networks: nets{}, Sandboxes: fn,
		Volumes: vols, Events: b, Logger: log,
		LogReader: func(d, path string, o map[string]string) (logs.Reader, error) {
			return driver.NewReader(driver.Config{Driver: d, Path: path, Options: o})
		},
		Defaults: lifecycle.Defaults{CgroupParent: "/wherry-lc"},
	})
	must(err)
	must(e.Boot(ctx))
	go e.Run(ctx)
	srv := api.New(api.Options{Routes: api.Routes(api.Groups{Containers: containers.New(e)}), Logger: log, ServerVersion: "dev", MinVersion: "1.24"})
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	must(err)
	srv.Serve(l)
	log.Info("ready")
	<-ctx.Done()
	srv.Shutdown(context.Background())
	e.Close()
	st.Close()
}
