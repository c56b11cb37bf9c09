package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/fixtures"
	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestPullVariants pulls one image in every format and runs it.
func TestPullVariants(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	set, registry := testenv.Images(t), testenv.Registry(t)
	cli := d.Docker(t)
	for _, tag := range []string{fixtures.TagDocker, fixtures.TagOCI, fixtures.TagZstd, fixtures.TagMulti, fixtures.TagList} {
		ref := registry.Addr() + "/busybox:" + tag
		want, _ := set.Find("busybox", tag)
		out := cli.OK(t, "pull", ref)
		contains(t, tag+" digest", out, "Digest: "+want.Digest.String())
		contains(t, tag+" status", out, "Status: Downloaded newer image for "+ref)
		contains(t, tag+" again", cli.OK(t, "pull", ref), "Status: Image is up to date for "+ref)
		contains(t, tag+" runs", cli.OK(t, "run", "--rm", ref, "cat", "/etc/os-release"), "Busybox from Debian")
		equal(t, tag+" layers", cli.OK(t, "inspect", "-f", "{{len .RootFS.Layers}}", ref), "2")
		equal(t, tag+" repo digest", cli.OK(t, "inspect", "-f", "{{index .RepoDigests 0}}", ref), registry.Addr()+"/busybox@"+want.Digest.String())
	}
	docker, _ := set.Find("busybox", fixtures.TagDocker)
	byDigest := registry.Addr() + "/busybox@" + docker.Digest.String()
	cli.OK(t, "pull", byDigest)
	equal(t, "by digest", cli.OK(t, "run", "--rm", byDigest, "echo", "ok"), "ok")

	// Of an index, the entry for another platform can be asked for.
	multi := registry.Addr() + "/debian:" + fixtures.TagMulti
	cli.OK(t, "pull", "--platform", "linux/arm64", multi)
	equal(t, "other platform", cli.OK(t, "inspect", "-f", "{{.Architecture}}", multi), "arm64")
	cli.Fails(t, 1, "no matching manifest", "pull", "--platform", "linux/s390x", multi)
	cli.Fails(t, 1, "not found", "pull", registry.Addr()+"/busybox:nosuchtag")
	cli.Fails(t, 1, "", "pull", registry.Addr()+"/nosuchrepo")
	cli.Fails(t, 1, "invalid reference format", "pull", "UPPER:/x")

	cli.OK(t, "pull", "-q", "-a", registry.Addr()+"/redis")
	if got := len(strings.Fields(cli.OK(t, "images", "-q", registry.Addr()+"/redis"))); got != 5 {
		t.Errorf("pull --all-tags: %d tags, want 5", got)
	}
}

// TestPullAsWherry looks at our own progress display, and at several pulls of
// the same image at once.
func TestPullAsWherry(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	ref := testenv.Registry(t).Addr() + "/nginx"
	cli := d.Wherry(t)
	term := cli.Terminal(t, "pull", ref)
	if code := term.Exit(); code != 0 {
		t.Fatalf("exit code %d: %q", code, term.Screen())
	}
	for _, want := range []string{"Downloading", "Extracting", "Pull complete", "Status: Downloaded newer image"} {
		contains(t, "on the terminal", term.Screen(), want)
	}
	cli.OK(t, "rmi", ref)
	done := make(chan testenv.Result)
	for range 4 {
		go func() { done <- cli.Try(t, "pull", "-q", ref) }()
	}
	for range 4 {
		if r := <-done; r.Code != 0 {
			t.Errorf("one of four pulls at once: %s", r.All())
		}
	}
	cli.OK(t, "run", "--rm", ref, "nginx", "-v")
}

func TestPullWithPassword(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	registry := testenv.SecureRegistry(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(registry.CA()))
	d := testenv.Start(t, testenv.Options{Env: []string{"SSL_CERT_FILE=" + ca}})
	ref := registry.Addr() + "/busybox"
	for _, cli := range []testenv.CLI{d.Docker(t), d.Wherry(t)} {
		cli.Fails(t, 1, "auth", "pull", ref)
		cli.Fails(t, 1, "unauthorized", "login", "-u", fixtures.User, "-p", "wrong", registry.Addr())
		contains(t, "login", cli.OKInput(t, strings.NewReader(fixtures.Password), "login", "-u", fixtures.User, "--password-stdin", registry.Addr()), "Login Succeeded")
		cli.OK(t, "pull", "-q", ref)
		equal(t, "it runs", cli.OK(t, "run", "--rm", ref, "echo", "ok"), "ok")
		cli.OK(t, "rmi", ref)
		cli.OK(t, "logout", registry.Addr())
		cli.Fails(t, 1, "", "pull", ref)
	}
}

// TestTokenRegistry logs in, pushes and pulls where a registry sends its
// clients to a token server.
func TestTokenRegistry(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	tokens, err := fixtures.NewTokenServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	registry := testenv.EmptyRegistry(t, fixtures.RegistryOptions{Tokens: tokens})
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	for _, cli := range []testenv.CLI{d.Docker(t), d.Wherry(t)} {
		private, public := registry.Addr()+"/mine/"+cli.Name, registry.Addr()+"/public/"+cli.Name
		cli.OK(t, "tag", image, private)
		cli.OK(t, "tag", image, public)
		cli.Fails(t, 1, "denied", "push", private)
		cli.Fails(t, 1, "unauthorized", "login", "-u", fixtures.User, "-p", "wrong", registry.Addr())
		contains(t, "login", cli.OKInput(t, strings.NewReader(fixtures.Password), "login", "-u", fixtures.User, "--password-stdin", registry.Addr()), "Login Succeeded")
		contains(t, "push", cli.OK(t, "push", private), "digest: sha256:")
		cli.OK(t, "push", "-q", public)
		cli.OK(t, "rmi", private, public)
		cli.OK(t, "pull", "-q", private)
		equal(t, "it runs", cli.OK(t, "run", "--rm", private, "echo", "ok"), "ok")
		cli.OK(t, "rmi", private)
		cli.OK(t, "logout", registry.Addr())
		cli.Fails(t, 1, "denied", "pull", private)
		cli.OK(t, "pull", "-q", public)
	}
	for _, grant := range []string{"anonymous", "password", "refresh_token"} {
		if got := tokens.Grants(); !slices.Contains(got, grant) {
			t.Errorf("nobody asked for a token by %s: %v", grant, got)
		}
	}
}

// TestUntrustedRegistry refuses a certificate of an unknown authority.
func TestUntrustedRegistry(t *testing.T) {
	t.Parallel()
	d := shared(t)
	// Loopback addresses may be insecure, so this one listens on the bridge.
	addr := fmt.Sprintf("%s:%d", d.Gateway, freePort(t))
	registry := testenv.EmptyRegistry(t, fixtures.RegistryOptions{TLS: true, Addr: addr})
	d.Docker(t).Fails(t, 1, "certificate", "pull", registry.Addr()+"/busybox")
}

func TestRegistryMirror(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	registry := testenv.Registry(t)
	d := testenv.Start(t, testenv.Options{Args: []string{"--registry-mirror", registry.URL()}})
	cli := d.Wherry(t)
	equal(t, "run through the mirror", cli.OK(t, "run", "--rm", "busybox", "echo", "ok"), "ok")
	equal(t, "its name", cli.OK(t, "images", "--format", "{{.Repository}}:{{.Tag}}", "busybox"), "busybox:latest")
}

func TestTagListRemove(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	d.Image(t, "debian")
	cli := d.Wherry(t)
	cli.OK(t, "tag", image, "other/name:v1")
	id := cli.OK(t, "images", "-q", "--no-trunc", image)
	equal(t, "same id", cli.OK(t, "images", "-q", "--no-trunc", "other/name:v1"), id)
	equal(t, "reference filter", cli.OK(t, "images", "--filter", "reference=other/*", "--format", "{{.Repository}} {{.Tag}}"), "other/name v1")
	contains(t, "history", cli.OK(t, "history", "--no-trunc", image), "users, groups and names")
	equal(t, "config", cli.OK(t, "inspect", "-f", "{{json .Config.Cmd}} {{.Architecture}} {{.Os}}", image), `["sh"] `+testenv.Arch+` linux`)
	cli.Fails(t, 1, "no such image", "rmi", "nosuch")
	cli.Fails(t, 1, "must be forced", "rmi", strings.TrimPrefix(id, "sha256:")[:12])
	n := name(t)
	cli.OK(t, "create", "--name", n, image)
	contains(t, "untag", cli.OK(t, "rmi", "other/name:v1"), "Untagged: other/name:v1")
	cli.Fails(t, 1, "using", "rmi", image)
	cli.OK(t, "rm", n)
	contains(t, "remove", cli.OK(t, "rmi", image), "Deleted: sha256:")
	cli.Fails(t, 1, "no such image", "inspect", "--type", "image", image)
	contains(t, "prune", cli.OK(t, "image", "prune", "-af"), "Total reclaimed space")
	equal(t, "left", cli.OK(t, "images", "-q"), "")
}

func TestSaveLoadImport(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	dir := t.TempDir()
	for _, cli := range []testenv.CLI{d.Docker(t), d.Wherry(t)} {
		file := filepath.Join(dir, cli.Name+".tar")
		cli.OK(t, "tag", image, "saved:one")
		before := cli.OK(t, "inspect", "-f", "{{.RootFS}} {{.Config}}", "saved:one")
		cli.OK(t, "save", "-o", file, "saved:one")
		cli.OK(t, "rmi", "saved:one")
		contains(t, "load", cli.OK(t, "load", "-i", file), "Loaded image: saved:one")
		equal(t, "after loading", cli.OK(t, "inspect", "-f", "{{.RootFS}} {{.Config}}", "saved:one"), before)
		equal(t, "it runs", cli.OK(t, "run", "--rm", "saved:one", "echo", "ok"), "ok")
		cli.OK(t, "rmi", "saved:one")

		n := name(t)
		cli.OK(t, "run", "--name", n, image, "sh", "-c", "echo flat >/flat")
		export := cli.Try(t, "export", n)
		cli.OK(t, "rm", n)
		id := cli.OKInput(t, strings.NewReader(export.Stdout), "import", "-c", "CMD cat /flat", "-m", "flattened", "-", "flat:"+cli.Name)
		contains(t, "import", id, "sha256:")
		equal(t, "imported", cli.OK(t, "run", "--rm", "flat:"+cli.Name), "flat")
	}
	// What one engine saved, gzipped by the user, loads too.
	data, err := os.ReadFile(filepath.Join(dir, "docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	cli := d.Docker(t)
	contains(t, "load from a pipe", cli.OKInput(t, bytes.NewReader(data), "load"), "Loaded image")
	r := cli.TryInput(t, strings.NewReader("this is no archive"), "load")
	if r.Code == 0 {
		t.Errorf("nonsense was loaded: %s", r.All())
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	registry := testenv.EmptyRegistry(t, fixtures.RegistryOptions{})
	image := d.Image(t, "busybox")
	for _, cli := range []testenv.CLI{d.Docker(t), d.Wherry(t)} {
		n := name(t)
		cli.OK(t, "run", "--name", n, image, "sh", "-c", "echo "+cli.Name+" >/who")
		ref := registry.Addr() + "/pushed/" + cli.Name + ":v1"
		cli.OK(t, "commit", n, ref)
		cli.OK(t, "rm", n)
		contains(t, "push", cli.OK(t, "push", ref), "digest: sha256:")
		cli.OK(t, "rmi", ref)
		cli.OK(t, "pull", "-q", ref)
		equal(t, "came back", cli.OK(t, "run", "--rm", ref, "cat", "/who"), cli.Name)
	}
	cli := d.Docker(t)
	cli.Fails(t, 1, "does not exist", "push", registry.Addr()+"/nosuch")
}

// TestRealPrograms runs the two servers as their images are meant to be used.
func TestRealPrograms(t *testing.T) {
	t.Parallel()
	d := shared(t)
	d.Image(t, "nginx")
	d.Image(t, "redis")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		web := detached(t, cli, "-p", "127.0.0.1::80", "-e", "GREETING=ahoy", "nginx")
		contains(t, "page", httpGet(t, "127.0.0.1:"+port(t, cli, web, "80/tcp", "4")), "ahoy")
		testenv.Eventually(t, "the access log", func() bool { return strings.Contains(cli.Try(t, "logs", web).All(), "GET / HTTP") })
		testenv.Eventually(t, "health", func() bool { return cli.OK(t, "inspect", "-f", "{{.State.Health.Status}}", web) == "healthy" })
		cli.OK(t, "stop", web) // by the image's SIGQUIT
		equal(t, "exit code", cli.OK(t, "inspect", "-f", "{{.State.ExitCode}}", web), "0")

		net := network(t, cli)
		store := name(t)
		detached(t, cli, "--name", store, "--network", net, "redis")
		testenv.Eventually(t, "redis answers", func() bool { return strings.Contains(cli.Try(t, "exec", store, "redis-cli", "ping").Stdout, "PONG") })
		cli.OK(t, "run", "--rm", "--network", net, "--entrypoint", "redis-cli", "redis", "-h", store, "set", "cargo", "tea")
		equal(t, "user", cli.OK(t, "exec", store, "id", "-un"), "redis")
		var mounts []struct{ Type, Destination string }
		if err := json.Unmarshal([]byte(cli.OK(t, "inspect", "-f", "{{json .Mounts}}", store)), &mounts); err != nil || len(mounts) != 1 || mounts[0].Type != "volume" || mounts[0].Destination != "/data" {
			t.Errorf("mounts: %v %v", mounts, err)
		}
		cli.OK(t, "restart", store)
		testenv.Eventually(t, "what was stored survived", func() bool {
			return strings.TrimSpace(cli.Try(t, "exec", store, "redis-cli", "get", "cargo").Stdout) == "tea"
		})
	})
}
