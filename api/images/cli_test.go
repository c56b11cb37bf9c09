package images_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-engine/wherry/api"
	"github.com/wherry-engine/wherry/api/distribution"
	"github.com/wherry-engine/wherry/api/images"
	"github.com/wherry-engine/wherry/image/store"
	"github.com/wherry-engine/wherry/registry/client"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

// daemon serves the image endpoints alone on a socket.
type daemon struct {
	t     *testing.T
	sock  string
	store *store.Store
	users atomic.Pointer[[]images.User]
	http  *http.Client
}

// use says which containers there are.
func (d *daemon) use(users ...images.User) { d.users.Store(&users) }

func start(t *testing.T, root string, opts client.Options) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to own files of other users")
	}
	rc, err := client.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(store.Options{Root: root, Registry: rc, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(t.Context(), nil)
	d := &daemon{t: t, store: s, sock: filepath.Join(t.TempDir(), "s")}
	d.use()
	h := images.New(images.Options{Images: s, Search: rc, Users: func(context.Context) []images.User { return *d.users.Load() }})
	ping := func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("OK")); return err }
	srv := api.New(api.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Routes: []api.Route{
		{Method: "HEAD", Path: "/_ping", Handler: ping}, {Method: "GET", Path: "/_ping", Handler: ping},
		{Method: "GET", Path: "/distribution/{name:.*}/json", Handler: distribution.New(rc).Inspect},
		{Method: "POST", Path: "/images/create", Handler: h.Create}, {Method: "GET", Path: "/images/get", Handler: h.GetAll},
		{Method: "GET", Path: "/images/json", Handler: h.List}, {Method: "POST", Path: "/images/load", Handler: h.Load},
		{Method: "POST", Path: "/images/prune", Handler: h.Prune}, {Method: "GET", Path: "/images/search", Handler: h.Search},
		{Method: "DELETE", Path: "/images/{name:.*}", Handler: h.Delete}, {Method: "GET", Path: "/images/{name:.*}/get", Handler: h.Get},
		{Method: "GET", Path: "/images/{name:.*}/history", Handler: h.History}, {Method: "GET", Path: "/images/{name:.*}/json", Handler: h.Inspect},
		{Method: "POST", Path: "/images/{name:.*}/push", Handler: h.Push}, {Method: "POST", Path: "/images/{name:.*}/tag", Handler: h.Tag},
	}})
	l, err := net.Listen("unix", d.sock)
	if err != nil {
		t.Fatal(err)
	}
	srv.Serve(l)
	d.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.sock)
	}}}
	t.Cleanup(func() {
		srv.Shutdown(context.Background())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// docker runs the stock command line and returns what it printed.
func (d *daemon) docker(args ...string) (string, error) {
	d.t.Helper()
	bin, err := exec.LookPath("docker")
	if err != nil {
		d.t.Skip("the docker command line is not installed")
	}
	cmd := exec.CommandContext(d.t.Context(), bin, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.sock, "DOCKER_CONFIG="+d.t.TempDir())
	out, err := cmd.CombinedOutput()
	d.t.Logf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	return string(out), err
}

func (d *daemon) want(part string, args ...string) {
	d.t.Helper()
	if out, err := d.docker(args...); err != nil || !strings.Contains(out, part) {
		d.t.Errorf("docker %s lacks %q", strings.Join(args, " "), part)
	}
}

func (d *daemon) refuses(part string, args ...string) {
	d.t.Helper()
	if out, err := d.docker(args...); err == nil || !strings.Contains(out, part) {
		d.t.Errorf("docker %s does not fail with %q", strings.Join(args, " "), part)
	}
}

// get asks for JSON in an API version.
func (d *daemon) get(path string, v any) int {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://d"+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode
}

func testImage(t *testing.T, name string) registrytest.Image {
	t.Helper()
	return registrytest.New(t, registrytest.ImageOptions{Docker: true},
		registrytest.Tar(t, registrytest.Dir("etc/", 0o755), registrytest.Regular("etc/base", "base")),
		registrytest.Tar(t, registrytest.Regular("etc/name", name)))
}

func TestStockCommandLine(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	img := testImage(t, "one")
	registrytest.Remote{Base: "http://" + addr, Repo: "one"}.Push(t, img, "1")
	registrytest.Remote{Base: "http://" + addr, Repo: "one"}.Push(t, testImage(t, "two"), "2")
	d := start(t, t.TempDir(), client.Options{})
	one := addr + "/one:1"
	d.want("Status: Downloaded newer image for "+one, "pull", one)
	d.want("Image is up to date for "+one, "pull", one)
	d.want(one, "pull", "-q", one)
	d.refuses("manifest for "+addr+"/one:nope not found: manifest unknown: manifest unknown", "pull", addr+"/one:nope")
	d.want(img.Manifest.Digest.String()[7:19], "images")
	d.want("1", "images", "--format", "{{.Tag}}", "--filter", "reference=*/one")
	d.want("", "tag", one, "mine:x")
	if out, err := d.docker("images", "--filter", "reference=mine", "--format", "{{.Repository}}:{{.Tag}}"); err != nil || strings.TrimSpace(out) != "mine:x" {
		t.Errorf("reference filter: %q", out)
	}
	d.want("mine:x", "image", "inspect", "-f", "{{.RepoTags}} {{.GraphDriver.Name}} {{.Config.Cmd}}", "mine:x")
	d.want("<missing>", "history", "mine:x")
	d.want("Downloaded newer", "pull", "-a", addr+"/one")
	file := filepath.Join(t.TempDir(), "a.tar")
	d.want("", "save", "-o", file, "mine:x", addr+"/one:2")
	d.refuses("must be forced", "rmi", img.Manifest.Digest.Encoded()[:12])
	d.want("Untagged: mine:x", "rmi", "mine:x")
	d.want("Deleted: "+img.Manifest.Digest.String(), "rmi", one)
	d.refuses("No such image: "+one, "image", "inspect", one)
	d.want("Loaded image: mine:x", "load", "-i", file)
	d.want("", "tag", "mine:x", addr+"/pushed:9")
	d.want("9: digest: "+img.Manifest.Digest.String(), "push", addr+"/pushed:9")
	d.want("Layer already exists", "push", addr+"/pushed:9")
	user := images.User{ID: strings.Repeat("ab", 32), Image: img.Manifest.Digest}
	d.use(user)
	d.want("Untagged: mine:x", "rmi", "mine:x")
	d.refuses("(must force) - container abababababab is using its referenced image", "rmi", addr+"/pushed:9")
	user.Running = true
	d.use(user)
	d.refuses("cannot be forced", "rmi", "-f", img.Manifest.Digest.Encoded())
	d.use()
	d.want("Total reclaimed space", "image", "prune", "-af")
	d.want("", "images", "-q")
	d.refuses("invalid reference format", "pull", "Upper/Case")
	d.want("sha256:", "import", "-m", "hi", "-c", "CMD [\"x\"]", "-c", "ENV A=b", tarFile(t), "imp:1")
	d.want("[x] [A=b] hi", "image", "inspect", "-f", "{{.Config.Cmd}} {{.Config.Env}} {{.Comment}}", "imp:1")
	d.want(img.Config.Digest.String(), "manifest", "inspect", "--insecure", one)
}

func tarFile(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(p, registrytest.Tar(t, registrytest.Regular("hello", "hi")), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVersions(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	registrytest.Remote{Base: "http://" + addr, Repo: "one"}.Push(t, testImage(t, "one"), "1")
	d := start(t, t.TempDir(), client.Options{})
	d.want("", "pull", addr+"/one:1")
	for version, keys := range map[string]map[string]bool{
		"1.24": {"VirtualSize": true, "ContainerConfig": true, "Descriptor": false, "Parent": true},
		"1.44": {"VirtualSize": false, "ContainerConfig": true, "Descriptor": false, "Parent": true},
		"1.48": {"VirtualSize": false, "ContainerConfig": false, "Descriptor": true, "Parent": true},
		"1.56": {"VirtualSize": false, "ContainerConfig": false, "Descriptor": true, "Parent": false},
	} {
		got := map[string]any{}
		if code := d.get("/v"+version+"/images/"+addr+"/one:1/json", &got); code != http.StatusOK {
			t.Errorf("%s: %d %v", version, code, got)
		}
		for k, want := range keys {
			if _, ok := got[k]; ok != want {
				t.Errorf("%s: %s: %v, want %v", version, k, ok, want)
			}
		}
	}
	var list []map[string]any
	d.get(`/v1.24/images/json?filters={"reference":{"*/one":true}}`, &list)
	if len(list) != 1 || list[0]["VirtualSize"] != list[0]["Size"] {
		t.Errorf("%v", list)
	}
	var dist map[string]any
	if code := d.get("/v1.44/distribution/"+addr+"/one:1/json", &dist); code != http.StatusOK || dist["Platforms"] == nil {
		t.Errorf("%d %v", code, dist)
	}
	var fail map[string]any
	if code := d.get("/v1.44/distribution/"+addr+"/none:1/json", &fail); code != http.StatusNotFound {
		t.Errorf("%d %v", code, fail)
	}
	if code := d.get("/v1.44/images/none/json", &fail); code != http.StatusNotFound || fail["message"] != "No such image: none" {
		t.Errorf("%d %v", code, fail)
	}
	if code := d.get("/v1.44/images/json?filters={\"x\":[\"y\"]}", &fail); code != http.StatusBadRequest {
		t.Errorf("%d %v", code, fail)
	}
}
