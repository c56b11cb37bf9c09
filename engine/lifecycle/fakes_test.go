package lifecycle

import (
	"context"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	apivolume "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/internal/state"
	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/mem"
)

// world is everything around an engine; it outlives the engine, as disk and
// helpers outlive a daemon.
type world struct {
	t     *testing.T
	dir   string
	tasks *mem.Service
	nets  *fakeSandboxes
	laid  *fakeLayers
	vols  *fakeVolumes
	bus   *recorder
	// exec, if set, is what becomes of execs.
	exec func(ctx context.Context) error
	// netns are the namespaces that were made for user namespaces.
	netns []task.NetNSRequest
	// lost, if set, is why no task's namespace can be found.
	lost error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, dir: t.TempDir(), tasks: mem.New(), bus: &recorder{},
		nets: &fakeSandboxes{open: map[network.SandboxID]bool{}},
		laid: &fakeLayers{layers: map[container.ID]bool{}},
		vols: &fakeVolumes{all: map[string]*apivolume.Volume{}, users: map[string][]string{}},
	}
}

// engine starts a daemon; stop ends it without a word to anybody.
func (w *world) engine() (e *Engine, stop func()) {
	w.t.Helper()
	st, err := state.Open(state.Options{Dir: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	e, err = New(Options{
		DataRoot: w.dir, State: st, Tasks: withNetNS{w.tasks, w}, Images: fakeImages{}, Layers: w.laid, Networks: fakeNetworks{},
		Sandboxes: w.nets, Volumes: w.vols, Events: w.bus,
		LogReader: func(string, string, map[string]string) (logs.Reader, error) { return noLogs{}, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	if err := e.Boot(ctx); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-done
			if err := e.Close(); err != nil {
				w.t.Error(err)
			}
			if err := st.Close(); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(stop)
	return e, stop
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// withNetNS keeps a namespace for every task, which mem does not.
type withNetNS struct {
	*mem.Service
	w *world
}

func (s withNetNS) Exec(ctx context.Context, req task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	if s.w.exec != nil {
		return task.ExecStatus{}, s.w.exec(ctx)
	}
	return s.Service.Exec(ctx, req, conn)
}

func (s withNetNS) NetNS(context.Context, string) (*os.File, error) {
	if s.w.lost != nil {
		return nil, s.w.lost
	}
	return os.Open(os.DevNull)
}

func (s withNetNS) NewNetNS(_ context.Context, req task.NetNSRequest) (*os.File, error) {
	s.w.netns = append(s.w.netns, req)
	return os.Open(os.DevNull)
}

type recorder struct {
	mu  sync.Mutex
	log []string
}

func (r *recorder) Publish(typ apievents.Type, action apievents.Action, _ string, _ map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, string(typ)+" "+string(action))
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.log
	r.log = nil
	return out
}

type noLogs struct{}

func (noLogs) Read(context.Context, logs.ReadOptions) iter.Seq2[logs.Message, error] {
	return func(func(logs.Message, error) bool) {}
}

type fakeImages struct{}

func (fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (image.Image, error) {
	if ref != "busybox" && ref != digest.FromString("busybox").String() {
		return image.Image{}, errdefs.ErrNotFound.WithMessage("No such image: " + ref + ":latest")
	}
	img := image.Image{ID: digest.FromString("busybox"), Chain: digest.FromString("chain"), Platform: ocispec.Platform{OS: "linux"}}
	img.Config.Config = ocispec.ImageConfig{
		Env: []string{"PATH=/bin", "A=image"}, Cmd: []string{"sh"}, Labels: map[string]string{"from": "image"},
	}
	return img, nil
}
func (fakeImages) List(context.Context) ([]image.Image, error) { return nil, nil }
func (fakeImages) Prepare(_ context.Context, img image.Image) (digest.Digest, error) {
	return img.Chain, nil
}

type fakeLayers struct {
	mu     sync.Mutex
	layers map[container.ID]bool
}

func (l *fakeLayers) Name() string { return "fake" }
func (l *fakeLayers) Create(_ context.Context, id container.ID, _ digest.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.layers[id] = true
	return nil
}
func (l *fakeLayers) Root(context.Context, container.ID) (task.Root, error) { return task.Root{}, nil }
func (l *fakeLayers) View(context.Context, digest.Digest) (task.Root, error) {
	return task.Root{}, nil
}
func (l *fakeLayers) Changes(context.Context, container.ID) ([]snapshot.Change, error) {
	return nil, nil
}
func (l *fakeLayers) Diff(context.Context, container.ID, io.Writer) error { return nil }
func (l *fakeLayers) Usage(context.Context, container.ID) (snapshot.Usage, error) {
	return snapshot.Usage{Bytes: 5}, nil
}
func (l *fakeLayers) Remove(_ context.Context, id container.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.layers, id)
	return nil
}
func (l *fakeLayers) List(context.Context) ([]container.ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []container.ID
	for id := range l.layers {
		out = append(out, id)
	}
	return out, nil
}
func (l *fakeLayers) Status() [][2]string { return nil }
func (l *fakeLayers) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.layers)
}

type fakeNetworks struct{}

func (fakeNetworks) Create(context.Context, network.CreateRequest) (apinetwork.CreateResponse, error) {
	return apinetwork.CreateResponse{}, nil
}
func (fakeNetworks) Get(_ context.Context, ref string) (apinetwork.Inspect, error) {
	var n apinetwork.Inspect
	n.Name = ref
	return n, nil
}
func (fakeNetworks) List(context.Context) ([]apinetwork.Inspect, error) { return nil, nil }
func (fakeNetworks) Delete(context.Context, string) error               { return nil }

type fakeSandboxes struct {
	mu   sync.Mutex
	open map[network.SandboxID]bool
	fail error
}

func (s *fakeSandboxes) Open(_ context.Context, req network.SandboxRequest) (network.Sandbox, *os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return network.Sandbox{}, nil, s.fail
	}
	s.open[req.ID] = true
	f, err := os.Open(os.DevNull)
	return network.Sandbox{ID: req.ID, Hosts: []string{"10.0.0.2\t" + req.Hostname}}, f, err
}
func (s *fakeSandboxes) Close(_ context.Context, id network.SandboxID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	return nil
}
func (s *fakeSandboxes) Get(_ context.Context, id network.SandboxID) (network.Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open[id] {
		return network.Sandbox{}, errdefs.ErrNotFound
	}
	return network.Sandbox{ID: id}, nil
}
func (s *fakeSandboxes) Connect(context.Context, network.SandboxID, *os.File, network.EndpointRequest) (network.Endpoint, error) {
	return network.Endpoint{}, nil
}
func (s *fakeSandboxes) Disconnect(context.Context, network.SandboxID, *os.File, string, bool) error {
	return nil
}
func (s *fakeSandboxes) Rename(context.Context, network.SandboxID, string) error { return nil }
func (s *fakeSandboxes) Restore(_ context.Context, live map[network.SandboxID]*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.open {
		if _, ok := live[id]; !ok {
			delete(s.open, id)
		}
	}
	return nil
}
func (s *fakeSandboxes) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

type fakeVolumes struct {
	mu    sync.Mutex
	all   map[string]*apivolume.Volume
	users map[string][]string
}

func (v *fakeVolumes) Create(_ context.Context, req apivolume.CreateRequest) (apivolume.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all[req.Name] == nil {
		v.all[req.Name] = &apivolume.Volume{Name: req.Name, Driver: req.Driver, Labels: req.Labels}
	}
	return *v.all[req.Name], nil
}
func (v *fakeVolumes) Get(_ context.Context, name string) (apivolume.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all[name] == nil {
		return apivolume.Volume{}, errdefs.ErrNotFound
	}
	return *v.all[name], nil
}
func (v *fakeVolumes) List(context.Context) ([]apivolume.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []apivolume.Volume
	for _, x := range v.all {
		out = append(out, *x)
	}
	return out, nil
}
func (v *fakeVolumes) Delete(_ context.Context, name string, _ bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all, name)
	return nil
}
func (v *fakeVolumes) Mount(context.Context, string, string) (string, error) { return "/tmp", nil }
func (v *fakeVolumes) Unmount(context.Context, string, string) error         { return nil }
func (v *fakeVolumes) Reference(_ context.Context, name, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.users[name] = append(v.users[name], id)
	return nil
}
func (v *fakeVolumes) Release(_ context.Context, name, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.users[name] = slices.DeleteFunc(v.users[name], func(x string) bool { return x == id })
	return nil
}
func (v *fakeVolumes) Users(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.users[name])
}
func (v *fakeVolumes) NeedsPopulating(context.Context, string) (bool, error) { return false, nil }
func (v *fakeVolumes) Populated(context.Context, string) error               { return nil }
func (v *fakeVolumes) Usage(context.Context, string) (int64, error)          { return 0, nil }
func (v *fakeVolumes) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.all)
}
