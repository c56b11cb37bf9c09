package build

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/task"
)

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

func TestImageNames(t *testing.T) {
	got, err := imageNames([]string{"app", "", "app:latest", "reg.example:5000/x:1"})
	if want := "docker.io/library/app:latest,reg.example:5000/x:1"; err != nil || got != want {
		t.Errorf("names = %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"App", "a@sha256:" + "0000000000000000000000000000000000000000000000000000000000000000", ":x"} {
		if _, err := imageNames([]string{bad}); !errdefs.IsInvalidArgument(err) {
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

func TestRemote(t *testing.T) {
	for remote, want := range map[string]bool{
		"http://x/ctx.tar": true, "https://x/Dockerfile": true, "https://x/y.git#main:sub": true, "git@x:y.git": true, "github.com/x/y": true,
		"file:///etc/passwd": false, "/etc": false, "ftp://x/y": false, "docker-image://x": false,
	} {
		if err := checkRemote(remote); (err == nil) != want || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", remote, err)
		}
	}
}

// recording is an exporter that only notes its options.
type recording struct{ attrs map[string]string }

func (r *recording) Resolve(_ context.Context, _ int, attrs map[string]string) (exporter.ExporterInstance, error) {
	r.attrs = attrs
	return nil, nil
}

// TestExporterNames is about what clients of BuildKit's own API send.
func TestExporterNames(t *testing.T) {
	for name, tt := range map[string]struct{ in, want map[string]string }{
		"as typed":  {map[string]string{"name": "app,reg:5000/x:1"}, map[string]string{"name": "docker.io/library/app:latest,reg:5000/x:1"}},
		"none":      {nil, map[string]string{"name": "", "dangling-name-prefix": danglingPrefix}},
		"by build":  {map[string]string{"name": "*"}, map[string]string{"name": "*"}},
		"by digest": {map[string]string{"name": "reg:5000/x", "push-by-digest": "true"}, map[string]string{"name": "reg:5000/x", "push-by-digest": "true"}},
		"unpack":    {map[string]string{"name": "app", "unpack": "true"}, map[string]string{"name": "docker.io/library/app:latest"}},
	} {
		r := &recording{}
		if _, err := (&storing{Exporter: r}).Resolve(t.Context(), 0, tt.in); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, r.attrs); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := (&storing{Exporter: &recording{}}).Resolve(t.Context(), 0, map[string]string{"name": "No Such"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name that is none: %v", err)
	}
}
