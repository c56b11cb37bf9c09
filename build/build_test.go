package build

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wherry-engine/wherry/task"
)

func TestStepTitle(t *testing.T) {
	for name, want := range map[string]string{
		"[1/3] FROM docker.io/library/busybox": "Step 1/3 : FROM docker.io/library/busybox",
		"[builder 2/4] RUN make":               "Step 2/4 (builder) : RUN make",
		"[internal] load build definition":     "",
		"[auth] library/busybox:pull":          "",
		"exporting to image":                   "",
		"":                                     "",
	} {
		if got := stepTitle(name); got != want {
			t.Errorf("stepTitle(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestTaskRoot(t *testing.T) {
	got, err := taskRoot([]mount.Mount{{Type: "overlay", Options: []string{"workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off"}}})
	want := task.Root{Layers: []string{"/b", "/a"}, Upper: "/u", Work: "/w", Options: []string{"index=off"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("overlay: %v %s", err, diff)
	}
	got, err = taskRoot([]mount.Mount{{Type: "bind", Source: "/x", Options: []string{"ro", "rbind"}}})
	if diff := cmp.Diff(task.Root{Bind: "/x", ReadOnly: true}, got); err != nil || diff != "" {
		t.Errorf("bind: %v %s", err, diff)
	}
	if _, err := taskRoot([]mount.Mount{{Type: "ext4"}}); err == nil {
		t.Error("an unknown type was accepted")
	}
	if _, err := taskRoot(nil); err == nil {
		t.Error("no mounts were accepted")
	}
}

func TestRequestAttrs(t *testing.T) {
	val := "1"
	r := Request{
		Dockerfile: "sub/Dockerfile", Target: "final", NoCache: true, Pull: true, NetworkMode: "host",
		BuildArgs: map[string]*string{"A": &val, "UNSET": nil}, Labels: map[string]string{"l": "v"},
		ExtraHosts: []string{"db:10.0.0.1", "six:::1"}, ShmSize: 64,
	}
	got, err := r.attrs()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"filename": "sub/Dockerfile", "target": "final", "no-cache": "", "image-resolve-mode": "pull",
		"force-network-mode": "host", "build-arg:A": "1", "label:l": "v", "add-hosts": "db=10.0.0.1,six=::1", "shm-size": "64",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []Request{{NetworkMode: "mynet"}, {ExtraHosts: []string{"db"}}, {ExtraHosts: []string{"db:nope"}}} {
		if _, err := bad.attrs(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v, want InvalidArgument", bad, err)
		}
	}
}

func TestRequestNames(t *testing.T) {
	r := Request{Tags: []string{"app", "app:latest", "reg.example:5000/x:1"}}
	got, err := r.names()
	if want := "docker.io/library/app:latest,reg.example:5000/x:1"; err != nil || got != want {
		t.Errorf("names = %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"App", "a@sha256:" + "0000000000000000000000000000000000000000000000000000000000000000", ":x"} {
		if _, err := (&Request{Tags: []string{bad}}).names(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, want InvalidArgument", bad, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	c := &credentials{auth: map[string]registry.AuthConfig{
		"https://index.docker.io/v1/": {Username: "hub", Password: "p"},
		"reg:5000":                    {Auth: "dTpz"},
		"tok":                         {IdentityToken: "t"},
	}}
	for host, want := range map[string][2]string{
		"registry-1.docker.io": {"hub", "p"}, "reg:5000": {"u", "s"}, "tok": {"", "t"}, "other": {"", ""},
	} {
		got, err := c.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
		if err != nil || got.Username != want[0] || got.Secret != want[1] {
			t.Errorf("%s: %v %v, want %v", host, got, err, want)
		}
	}
}

// lines collects a build's text.
type lines struct{ text string }

func (l *lines) Stream(s string) error { l.text += s; return nil }
func (l *lines) Aux(string, any) error { return nil }

func TestSteps(t *testing.T) {
	out := &lines{}
	s := newSteps(out)
	now := timestamppb.Now()
	for _, m := range []*controlapi.StatusResponse{
		{Vertexes: []*controlapi.Vertex{{Digest: "i", Name: "[internal] load", Started: now}}},
		{Vertexes: []*controlapi.Vertex{{Digest: "a", Name: "[1/2] FROM x", Cached: true, Started: now, Completed: now}}},
		{Vertexes: []*controlapi.Vertex{{Digest: "b", Name: "[2/2] RUN echo hi", Started: now}}},
		{Logs: []*controlapi.VertexLog{{Vertex: "b", Msg: []byte("hi\n")}}},
		{Vertexes: []*controlapi.Vertex{{Digest: "b", Name: "[2/2] RUN echo hi", Started: now, Completed: now}}},
	} {
		if err := s.show(m); err != nil {
			t.Fatal(err)
		}
	}
	want := "Step 1/2 : FROM x\n ---> Using cache\nStep 2/2 : RUN echo hi\nhi\n"
	if diff := cmp.Diff(want, out.text); diff != "" {
		t.Error(diff)
	}
}

func TestFramed(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	h := &tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 1, ModTime: time.Unix(1, 5), Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("x"))
	w.Close()
	r, err := framed(io.NopCloser(&buf))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if diff := cmp.Diff([]string{"./", "Dockerfile"}, names); diff != "" {
		t.Error(diff)
	}
	gz := "\x1f\x8brest"
	r, err = framed(io.NopCloser(strings.NewReader(gz)))
	if raw, _ := io.ReadAll(r); err != nil || string(raw) != gz {
		t.Errorf("a compressed context was changed: %q %v", raw, err)
	}
	if _, err := framed(io.NopCloser(strings.NewReader(""))); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an empty context: %v", err)
	}
}
