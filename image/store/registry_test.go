package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/client"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

func small(t testing.TB, name string) registrytest.Image {
	t.Helper()
	return registrytest.New(t, registrytest.ImageOptions{}, registrytest.Tar(t, registrytest.Regular(name, strings.Repeat(name, 5000))))
}

// incompressible is a layer large enough to be cut in the middle.
func incompressible(t testing.TB) registrytest.Image {
	t.Helper()
	var b strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&b, "%x", i*2654435761)
	}
	return registrytest.New(t, registrytest.ImageOptions{Compression: "none"}, registrytest.Tar(t, registrytest.Regular("big", b.String())))
}

func TestBasicAuthAndTLS(t *testing.T) {
	hash, err := exec.Command("htpasswd", "-nbB", "me", "secret").Output()
	if err != nil {
		// bcrypt of "secret", cost 5
		hash = []byte("me:$2y$05$Qq7YtJYv8s0zv0QWzQ0o7uJ9l0m2yqg9c9yCkqg0vT9C6t2m8q2eK\n")
		t.Skip("htpasswd is not installed")
	}
	cert, key := registrytest.Certificate(t)
	addr := registrytest.Start(t, registrytest.Config{Htpasswd: string(hash), CertFile: cert, KeyFile: key})
	s := open(t, Options{})
	ctx := t.Context()
	good, bad := &registry.AuthConfig{Username: "me", Password: "secret"}, &registry.AuthConfig{Username: "me", Password: "wrong"}
	src := registrytest.NewFake(t)
	src.Add(small(t, "a"), "1")
	if err := s.Pull(ctx, image.PullRequest{Ref: src.Host() + "/x:1"}, nil); err != nil {
		t.Fatal(err)
	}
	ref := addr + "/mine:1"
	if err := s.Tag(ctx, src.Host()+"/x:1", ref); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(ctx, image.PushRequest{Ref: ref}, nil); !errdefs.IsPermissionDenied(err) {
		t.Errorf("push without credentials: %v", err)
	}
	var rec record
	if err := s.Push(ctx, image.PushRequest{Ref: ref, Auth: good}, &rec); err != nil {
		t.Fatal(err)
	}
	other := open(t, Options{})
	for name, c := range map[string]struct {
		auth  *registry.AuthConfig
		class func(error) bool
		text  string
	}{
		"none":  {nil, errdefs.IsNotFound, "pull access denied for " + addr + "/mine, repository does not exist or may require 'docker login': "},
		"wrong": {bad, errdefs.IsUnauthorized, "unauthorized: "},
	} {
		err := other.Pull(ctx, image.PullRequest{Ref: ref, Auth: c.auth}, nil)
		if !c.class(err) || !strings.HasPrefix(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := other.Pull(ctx, image.PullRequest{Ref: ref, Auth: good}, nil); err != nil {
		t.Fatal(err)
	}
	login := func(a *registry.AuthConfig) error {
		b := *a
		b.ServerAddress = addr
		_, err := other.Registry().Login(ctx, b)
		return err
	}
	if err := login(good); err != nil {
		t.Error(err)
	}
	if err := login(bad); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with the wrong password: %v", err)
	}
}

func TestTokenAuth(t *testing.T) {
	for name, c := range map[string]struct {
		user string
		auth *registry.AuthConfig
		ok   bool
	}{
		"anonymous":      {"", nil, true},
		"password":       {"me", &registry.AuthConfig{Username: "me", Password: "p"}, true},
		"encoded":        {"me", &registry.AuthConfig{Auth: "bWU6cA=="}, true},
		"identity token": {"me", &registry.AuthConfig{IdentityToken: "p"}, true},
		"registry token": {"me", &registry.AuthConfig{RegistryToken: "t0"}, true},
		"wrong":          {"me", &registry.AuthConfig{Username: "me", Password: "q"}, false},
		"missing":        {"me", nil, false},
		"bad token":      {"me", &registry.AuthConfig{RegistryToken: "t1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := registrytest.NewFake(t)
			f.Token, f.User, f.Pass = "t0", c.user, "p"
			f.Add(small(t, "a"), "1")
			s := open(t, Options{})
			err := s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1", Auth: c.auth}, nil)
			if c.ok != (err == nil) {
				t.Errorf("%v", err)
			}
			if !c.ok && !errdefs.IsNotFound(err) && !errdefs.IsUnauthorized(err) {
				t.Errorf("class of %v", err)
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	f := registrytest.NewFake(t)
	f.Add(small(t, "a"), "latest")
	rc, err := client.New(client.Options{Mirrors: []string{f.URL}})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Registry: rc})
	auth := &registry.AuthConfig{Username: "u", Password: "p"}
	f.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went to a mirror")
		}
		return false
	}
	if err := s.Pull(t.Context(), image.PullRequest{Ref: "thing", Auth: auth}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(t.Context(), "docker.io/library/thing:latest", nil)
	if err != nil || got.RepoTags[0] != "thing:latest" {
		t.Errorf("%v, %v", got.RepoTags, err)
	}
}

func TestHostileRegistry(t *testing.T) {
	img := small(t, "a")
	layer := img.Layers[0]
	isLayerRequest := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, layer.Digest.String()) }
	for name, c := range map[string]struct {
		hook func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool
		want string
	}{
		"wrong digest": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					f.Send(w, r, layer, []byte(strings.Repeat("x", int(layer.Size))))
				}
				return isLayerRequest(r)
			}
		}, "filesystem layer verification failed for digest " + layer.Digest.String()},
		"too long": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					f.Send(w, r, layer, append(append([]byte{}, layer.Data...), "more"...))
				}
				return isLayerRequest(r)
			}
		}, "more than the announced"},
		"truncated": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					f.Send(w, r, layer, layer.Data[:10])
				}
				return isLayerRequest(r)
			}
		}, ""},
		"endless 401": {func(*registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
		}, "pull access denied"},
		"endless token": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					_, _ = w.Write([]byte(`{"token":"never right"}`))
					return true
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="s",scope="repository:x:pull",error="insufficient_scope"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
		}, "pull access denied"},
		"redirect loop": {func(*registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
				}
				return isLayerRequest(r)
			}
		}, ""},
		"huge manifest": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			big := registrytest.NewBlob(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"x":"`+strings.Repeat("x", 6<<20)+`"}`))
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					f.Send(w, r, big, big.Data)
					return true
				}
				return false
			}
		}, "is too large"},
		"ambiguous": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			both := registrytest.NewBlob(ocispec.MediaTypeImageManifest, []byte(strings.TrimSuffix(string(img.Manifest.Data), "}")+`,"manifests":[]}`))
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					f.Send(w, r, both, both.Data)
					return true
				}
				return false
			}
		}, "ambiguous document"},
		"other type": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					b := img.Manifest
					b.MediaType = ocispec.MediaTypeImageIndex
					f.Send(w, r, b, b.Data)
					return true
				}
				return false
			}
		}, ""},
		"manifest is not its digest": {func(f *registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/sha256:") {
					f.Send(w, r, img.Manifest, []byte(strings.Replace(string(img.Manifest.Data), "2", "3", 1)))
					return true
				}
				return false
			}
		}, "verification failed"},
		"server error": {func(*registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					w.WriteHeader(http.StatusInternalServerError)
				}
				return isLayerRequest(r)
			}
		}, ""},
		"missing blob": {func(*registrytest.Fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if isLayerRequest(r) {
					w.WriteHeader(http.StatusNotFound)
				}
				return isLayerRequest(r)
			}
		}, "blob unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := registrytest.NewFake(t)
			f.Add(img, "1")
			f.Hook = c.hook(f)
			s := open(t, Options{MaxDownloadAttempts: 2})
			begin := time.Now()
			err := s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil)
			t.Logf("%v after %v, %d requests", err, time.Since(begin).Round(time.Millisecond), len(f.Requests()))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if len(f.Requests()) > 60 {
				t.Errorf("%d requests", len(f.Requests()))
			}
			nothingLeft(t, s)
			f.Hook = nil
			if err := s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestResume cuts a download short and goes on where it stopped, also in a
// store that was opened again.
func TestResume(t *testing.T) {
	img := incompressible(t)
	layer := img.Layers[0]
	f := registrytest.NewFake(t)
	f.Add(img, "1")
	var cut atomic.Int32
	f.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.Digest.String()) || cut.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(layer.Size))
		_, _ = w.Write(layer.Data[:layer.Size/2])
		panic(http.ErrAbortHandler)
	}
	root := t.TempDir()
	s, err := Open(Options{Root: root, MaxDownloadAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil)
	t.Log(err)
	if err == nil && cut.Load() < 2 {
		t.Error("the cut download was taken")
	}
	if _, err := s.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Log("the client resumed by itself")
	}
	again := open(t, Options{Root: root})
	if _, err := again.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err != nil {
		t.Fatal(err)
	}
	resumed := false
	for _, r := range f.Requests() {
		resumed = resumed || strings.Contains(r, "bytes=") && !strings.Contains(r, "bytes=0-")
	}
	if !resumed {
		t.Errorf("nothing was resumed: %v", f.Requests())
	}
}

// TestResumeAfterKill finds a partial download that another process left.
func TestResumeAfterKill(t *testing.T) {
	img := incompressible(t)
	layer := img.Layers[0]
	f := registrytest.NewFake(t)
	f.Add(img, "1")
	root := t.TempDir()
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	ctx := s.context(t.Context())
	w, err := content.OpenWriter(ctx, s.ContentStore(), content.WithRef("pull-"+layer.Digest.String()), content.WithDescriptor(layer.Descriptor))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(layer.Data[:layer.Size/3]); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Root: root})
	if _, err := again.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if err := again.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(root + "/content/ingest/*"); err != nil || len(left) != 0 {
		t.Errorf("ingests left: %v, %v", left, err)
	}
	want := fmt.Sprintf("GET /v2/x/blobs/%s bytes=%d-", layer.Digest, layer.Size/3)
	for _, r := range f.Requests() {
		if strings.HasPrefix(r, want) {
			return
		}
	}
	t.Errorf("no %q in %v", want, f.Requests())
}

// TestPullOfLostBlobs pulls what is unpacked, but whose blobs are gone.
func TestPullOfLostBlobs(t *testing.T) {
	var layers [][]byte
	for i := range 5 {
		b := make([]byte, 6<<20)
		r := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // content
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		layers = append(layers, registrytest.Tar(t, registrytest.Regular(fmt.Sprint(i), string(b))))
	}
	img := registrytest.New(t, registrytest.ImageOptions{Compression: "none"}, layers...)
	f := registrytest.NewFake(t)
	f.Add(img, "1")
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	ref := f.Host() + "/x:1"
	for range 2 {
		ctx, cancel := contextWithTimeout(t, 60*time.Second)
		if err := s.Pull(ctx, image.PullRequest{Ref: ref}, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
		for _, l := range img.Layers {
			if err := s.ContentStore().Delete(s.context(t.Context()), l.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.GarbageCollect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	nothingLeft(t, s)
}

// TestPruneDropsPartialDownloads leaves nothing of a download that nobody resumes.
func TestPruneDropsPartialDownloads(t *testing.T) {
	img := incompressible(t)
	layer := img.Layers[0]
	s := open(t, Options{})
	ctx := s.context(t.Context())
	leave := func() {
		w, err := content.OpenWriter(ctx, s.ContentStore(), content.WithRef(pullPrefix+layer.Digest.String()), content.WithDescriptor(layer.Descriptor))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(layer.Data[:1000]); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
	}
	none := func(when string) {
		if left, err := filepath.Glob(s.opts.Root + "/content/ingest/*"); err != nil || len(left) != 0 {
			t.Errorf("%s: ingests left: %v, %v", when, left, err)
		}
	}
	leave()
	if _, freed, err := s.Prune(t.Context(), image.PruneOptions{DanglingOnly: true}); err != nil || freed != 1000 {
		t.Errorf("%d, %v", freed, err)
	}
	none("prune")
	importTar(t, s, "last", "f", "f")
	leave()
	unlock := s.keys.lock("blob:" + layer.Digest.String())
	if _, _, err := s.Prune(t.Context(), image.PruneOptions{DanglingOnly: true}); err != nil {
		t.Error(err)
	}
	unlock()
	if left, err := filepath.Glob(s.opts.Root + "/content/ingest/*"); err != nil || len(left) != 1 {
		t.Errorf("a download under way was touched: %v, %v", left, err)
	}
	if _, err := s.Delete(t.Context(), "last", image.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	none("last image removed")
}

func TestConcurrentPulls(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	img := twoLayers(t, registrytest.ImageOptions{})
	for i := range 4 {
		registrytest.Remote{Base: "http://" + addr, Repo: fmt.Sprint("r", i)}.Push(t, img, "1")
	}
	s := open(t, Options{})
	errs := make(chan error)
	for i := range 8 {
		go func() {
			errs <- s.Pull(t.Context(), image.PullRequest{Ref: fmt.Sprintf("%s/r%d:1", addr, i%4)}, nil)
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || len(list[0].RepoTags) != 4 {
		t.Errorf("%d images, %v", len(list), err)
	}
	nothingLeft(t, s)
}

func TestCancelledPull(t *testing.T) {
	f := registrytest.NewFake(t)
	img := small(t, "a")
	f.Add(img, "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gate := make(chan struct{})
	f.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel()
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		return false
	}
	defer close(gate)
	s := open(t, Options{})
	if err := s.Pull(ctx, image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err == nil {
		t.Error("no error")
	}
	nothingLeft(t, s)
}

func TestStoreIsOwnedOnce(t *testing.T) {
	s := open(t, Options{})
	if _, err := os.Stat(filepath.Join(s.opts.Root, "metadata.db")); err != nil {
		t.Error(err)
	}
	for name, class := range map[string]func(error) bool{"btrfs": errdefs.IsNotImplemented, "zfs": errdefs.IsNotImplemented, "nonsense": errdefs.IsInvalidArgument} {
		if _, err := Open(Options{Root: t.TempDir(), SnapshotterName: name}); !class(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPullAgainstCollection pulls images that share layers while others remove
// them and collect.
func TestPullAgainstCollection(t *testing.T) {
	f := registrytest.NewFake(t)
	for i := range 3 {
		f.Add(registrytest.New(t, registrytest.ImageOptions{},
			registrytest.Tar(t, registrytest.Regular("shared", "shared")), registrytest.Tar(t, registrytest.Regular("own", fmt.Sprint(i%2))), registrytest.Tar(t, registrytest.Regular("last", fmt.Sprint(i)))), fmt.Sprint(i))
	}
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	ctx, cancel := contextWithTimeout(t, 4*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 3 {
		ref := fmt.Sprintf("%s/x:%d", f.Host(), i)
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := s.Pull(t.Context(), image.PullRequest{Ref: ref}, nil); err != nil {
					t.Errorf("pull %s: %v", ref, err)
					return
				}
				img, err := s.Resolve(t.Context(), ref, nil)
				if errdefs.IsNotFound(err) {
					continue // removed meanwhile
				}
				if err != nil {
					t.Errorf("resolve: %v", err)
					return
				}
				if dirs, err := s.Acquire(t.Context(), img.Chain); err == nil {
					if len(dirs) != 3 {
						t.Errorf("%v", dirs)
					}
					s.Release(img.Chain)
				} else if !errdefs.IsNotFound(err) {
					t.Errorf("acquire: %v", err)
				}
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Delete(t.Context(), ref, image.DeleteOptions{}); err != nil && !errdefs.IsNotFound(err) {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.GarbageCollect(t.Context()); err != nil {
				t.Errorf("collect: %v", err)
			}
		}
	})
	wg.Wait()
	nothingLeft(t, s)
}
