package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"
)

func write(t *testing.T, dir, text string) *File {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCredentials(t *testing.T) {
	f := write(t, t.TempDir(), `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"r.io:5":{"identitytoken":"tok"},"https://old.io/v1/":{"auth":"YTpi"},"bad":{"auth":"%"}}}`)
	for domain, want := range map[string]registry.AuthConfig{
		"docker.io": {Username: "u", Password: "p:w", ServerAddress: DockerHub},
		"r.io:5":    {IdentityToken: "tok", ServerAddress: "r.io:5"},
		"old.io":    {Username: "a", Password: "b", ServerAddress: "old.io"},
		"other.io":  {},
	} {
		got, err := f.Credentials(AuthKey(domain))
		if err != nil {
			t.Errorf("%s: %v", domain, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", domain, diff)
		}
	}
	if _, err := f.Credentials("bad"); err == nil {
		t.Error("broken credentials are accepted")
	}
	if n := len(f.All()); n != 3 {
		t.Errorf("%d credentials in all", n)
	}
}

// TestSaveKeeps stores and erases beside keys that this program does not know.
func TestSaveKeeps(t *testing.T) {
	dir := t.TempDir()
	f := write(t, dir, `{"unknown":{"a":[1,2]},"auths":{"x":{}}}`)
	if err := f.Store("r.io", registry.AuthConfig{Username: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(f.Path())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v %v", st.Mode(), err)
	}
	f, err = Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := f.Credentials("r.io"); err != nil || a.Password != "p" {
		t.Errorf("got %v %v", a, err)
	}
	if err := f.Erase("r.io"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"unknown": map[string]any{"a": []any{1.0, 2.0}}, "auths": map[string]any{"x": map[string]any{}}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestHelperNames(t *testing.T) {
	f := write(t, t.TempDir(), `{"credsStore":"../../evil","credHelpers":{"r.io":"a/b"}}`)
	for _, key := range []string{"x", "r.io"} {
		if _, err := f.Credentials(key); err == nil {
			t.Errorf("%s: a helper with a path is run", key)
		}
	}
}

func TestBroken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a broken file is no error")
	}
	if f, err := Load(t.TempDir()); err != nil || f == nil {
		t.Errorf("a missing file: %v", err)
	}
}

func TestContexts(t *testing.T) {
	dir := t.TempDir()
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Context("none"); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	meta := filepath.Join(dir, "contexts", "meta", contextID("c"))
	if err := os.MkdirAll(meta, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(meta, "meta.json"), []byte(`{"Name":"c","Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"tcp://h:1"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := f.Context("c")
	if err != nil || c.Endpoints["docker"].Host != "tcp://h:1" || c.Description() != "d" || c.TLSDir() != "" {
		t.Errorf("got %+v %v", c, err)
	}
	if all, err := f.Contexts(); err != nil || len(all) != 1 {
		t.Errorf("got %v %v", all, err)
	}
}
