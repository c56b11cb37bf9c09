package store

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

// dockerd runs Debian's daemon without networks and returns how to call its
// command line.
func dockerd(t *testing.T) func(args ...string) string {
	t.Helper()
	needsRoot(t)
	bin, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("dockerd is not installed")
	}
	dir, err := os.MkdirTemp("", "wherry-dockerd") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	sock := "unix://" + dir + "/s"
	logFile, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), bin, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", sock,
		"--bridge", "none", "--iptables=false", "--ip6tables=false")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = logFile.Close()
		_ = os.RemoveAll(dir)
	})
	call := func(args ...string) (string, error) {
		c := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", append([]string{"-H", sock}, args...)...)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := call("version"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Skip("dockerd does not start here")
		}
		time.Sleep(100 * time.Millisecond)
	}
	return func(args ...string) string {
		t.Helper()
		out, err := call(args...)
		if err != nil {
			t.Errorf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
}

// TestDockerReadsWhatWeSave loads our archives into dockerd and its into ours.
func TestDockerReadsWhatWeSave(t *testing.T) {
	docker := dockerd(t)
	addr := registrytest.Start(t, registrytest.Config{})
	remote := registrytest.Remote{Base: "http://" + addr, Repo: "x"}
	gz, plainImage := twoLayers(t, registrytest.ImageOptions{}), twoLayers(t, registrytest.ImageOptions{Compression: "none", Docker: true, Config: ocispec.ImageConfig{Cmd: []string{"x"}}})
	remote.Push(t, gz, "gzip")
	remote.Push(t, plainImage, "plain")
	remote.Put(t, registrytest.Index(t, false, map[string]registrytest.Image{"linux/amd64": gz}), "index")
	s := open(t, Options{})
	for _, tag := range []string{"gzip", "plain", "index"} {
		if err := s.Pull(t.Context(), image.PullRequest{Ref: addr + "/x:" + tag}, nil); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "all.tar")
	saveTo(t, s, file, addr+"/x")
	out := docker("load", "-i", file)
	for tag, img := range map[string]registrytest.Image{"gzip": gz, "plain": plainImage, "index": gz} {
		ref := addr + "/x:" + tag
		if !strings.Contains(out, "Loaded image: "+ref) {
			t.Errorf("%s was not loaded: %s", ref, out)
		}
		if id := docker("inspect", "-f", "{{.Id}}", ref); id != img.Config.Digest.String() {
			t.Errorf("%s: %s, want %s", ref, id, img.Config.Digest)
		}
	}
	back := filepath.Join(t.TempDir(), "back.tar")
	docker("save", "-o", back, addr+"/x:gzip")
	again := open(t, Options{})
	loadFrom(t, again, back)
	got, err := again.Resolve(t.Context(), addr+"/x:gzip", nil)
	if err != nil || got.ConfigDigest != gz.Config.Digest {
		t.Errorf("%v, %v", got.ConfigDigest, err)
	}
	dirs, err := again.Acquire(t.Context(), got.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if shown := show(t, dirs); shown["/etc/b"] != "two" || shown["/etc/gone"] != "" {
		t.Errorf("%v", shown)
	}
}

func saveTo(t *testing.T, s *Store, file string, refs ...string) {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(t.Context(), refs, nil, &b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func loadFrom(t *testing.T, s *Store, file string) *record {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rec record
	if err := s.Load(t.Context(), f, nil, &rec); err != nil {
		t.Fatal(err)
	}
	return &rec
}
