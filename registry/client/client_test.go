package client

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/ociref"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.CertsDirs == nil {
		o.CertsDirs = []string{t.TempDir()}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOptionsRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"mirror scheme":   {Mirrors: []string{"ftp://x"}},
		"mirror query":    {Mirrors: []string{"https://x/?q"}},
		"mirror password": {Mirrors: []string{"https://u:p@x"}},
		"mirror empty":    {Mirrors: []string{""}},
		"insecure URL":    {Insecure: []string{"http://x"}},
		"insecure path":   {Insecure: []string{"x/y"}},
		"insecure empty":  {Insecure: []string{""}},
	} {
		if _, err := New(o); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInsecure(t *testing.T) {
	c := newClient(t, Options{Insecure: []string{"Reg.test:5000", "plain.test", "10.1.0.0/16"}})
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "localhost:1": true, "reg.test:5000": true, "plain.test:99": true,
		"10.1.2.3:5000": true, "10.2.0.1:5000": false, "192.0.2.1": false, "registry-1.docker.io": false,
	} {
		if got := c.insecure(host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	c := newClient(t, Options{Mirrors: []string{"http://m.test:1/", "https://n.test/prefix"}})
	for domain, want := range map[string][]string{
		"docker.io": {"http://m.test:1/v2", "https://n.test/prefix/v2", "https://registry-1.docker.io/v2"}, "quay.test": {"https://quay.test/v2"},
	} {
		hosts, err := c.Hosts(nil)(domain)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, h := range hosts {
			got = append(got, h.Scheme+"://"+h.Host+h.Path)
			if push := h.Capabilities.Has(docker.HostCapabilityPush); push != (i == len(hosts)-1) {
				t.Errorf("%s: push %v", h.Host, push)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", domain, d)
		}
	}
}

func TestCertificates(t *testing.T) {
	cert, key := registrytest.Certificate(t, "reg.test")
	certs := t.TempDir()
	dir := filepath.Join(certs, "reg.test:5000")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	copyTo := func(from, name string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyTo(cert, "ca.crt")
	copyTo(cert, "client.cert")
	c := newClient(t, Options{CertsDirs: []string{certs}})
	if _, err := c.Hosts(nil)("reg.test:5000"); err == nil || !strings.Contains(err.Error(), "missing key client.key") {
		t.Errorf("%v", err)
	}
	copyTo(key, "client.key")
	hosts, err := c.Hosts(nil)("reg.test:5000")
	if err != nil {
		t.Fatal(err)
	}
	tr, ok := hosts[0].Client.Transport.(*http.Transport)
	if !ok || tr.TLSClientConfig.InsecureSkipVerify || tr.TLSClientConfig.RootCAs == nil || len(tr.TLSClientConfig.Certificates) != 1 {
		t.Errorf("%T", hosts[0].Client.Transport)
	}
	for _, evil := range []string{"../x", "a/b", ".."} {
		if d := c.certsDir(evil); d != "" {
			t.Errorf("%q: %s", evil, d)
		}
	}
}

func TestHostsToml(t *testing.T) {
	f := registrytest.NewFake(t)
	certs := t.TempDir()
	if err := os.Mkdir(filepath.Join(certs, "far.test"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "server = \"https://far.test\"\n[host.\"" + f.URL + "\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	if err := os.WriteFile(filepath.Join(certs, "far.test", "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	img := registrytest.New(t, registrytest.ImageOptions{})
	f.Add(img, "1")
	c := newClient(t, Options{CertsDirs: []string{certs}})
	ref, err := ociref.Parse("far.test/x:1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Inspect(t.Context(), ref, nil)
	if err != nil || got.Descriptor.Digest != img.Manifest.Digest || len(got.Platforms) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTags(t *testing.T) {
	f := registrytest.NewFake(t)
	away := registrytest.NewFake(t)
	link := ""
	f.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		if r.URL.Query().Get("last") == "b" {
			_, _ = w.Write([]byte(`{"tags":["c"]}`))
			return true
		}
		w.Header().Set("Link", link)
		_, _ = w.Write([]byte(`{"tags":["a","b"]}`))
		return true
	}
	c := newClient(t, Options{})
	ref, err := ociref.Parse(f.Host() + "/x/y")
	if err != nil {
		t.Fatal(err)
	}
	link = `</v2/x/y/tags/list?last=b>; rel="next"`
	tags, err := c.Tags(t.Context(), ref, nil)
	if d := cmp.Diff([]string{"a", "b", "c"}, tags); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	link = `<` + away.URL + `/v2/x>; rel="next"`
	if _, err := c.Tags(t.Context(), ref, nil); !errdefs.IsPermissionDenied(err) {
		t.Errorf("%v", err)
	}
	link = `</v2/x/y/tags/list>; rel="next"`
	if _, err := c.Tags(t.Context(), ref, nil); !errdefs.IsOutOfRange(err) {
		t.Errorf("endless: %v", err)
	}
}

func TestLogin(t *testing.T) {
	f := registrytest.NewFake(t)
	f.Token, f.User, f.Pass = "t", "me", "p"
	c := newClient(t, Options{})
	if _, err := c.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "p", ServerAddress: f.Host()}); err != nil {
		t.Error(err)
	}
	if _, err := c.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "q", ServerAddress: "http://" + f.Host() + "/v2/"}); !errdefs.IsUnauthorized(err) {
		t.Errorf("%v", err)
	}
	f.Close()
	if _, err := c.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "p", ServerAddress: f.Host()}); err == nil || errdefs.IsUnauthorized(err) {
		t.Errorf("%v", err)
	}
}

func TestSearch(t *testing.T) {
	f := registrytest.NewFake(t)
	f.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/search" && r.URL.Query().Get("q") == "thing" && r.URL.Query().Get("n") == "7" {
			_, _ = w.Write([]byte(`{"results":[{"name":"thing","star_count":3}]}`))
			return true
		}
		return false
	}
	c := newClient(t, Options{})
	got, err := c.Search(t.Context(), f.Host()+"/thing", 7, nil)
	if err != nil || len(got) != 1 || got[0].StarCount != 3 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.Search(t.Context(), f.Host()+"/thing", 101, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
	if _, err := c.Search(t.Context(), f.Host()+"/other", 0, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
}
