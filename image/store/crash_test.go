package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

const (
	crashRoot = "WHERRY_TEST_CRASH_ROOT"
	crashHost = "WHERRY_TEST_CRASH_HOST"
)

// TestCrashChild is the process that TestKill kills.
func TestCrashChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	if root == "" {
		t.Skip("runs as the child of TestKill")
	}
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(t.Context(), nil)
	fmt.Println("ready")
	for i := 0; ; i++ {
		ctx := t.Context()
		ref := fmt.Sprintf("%s/x:%d", os.Getenv(crashHost), i%3)
		if err := s.Pull(ctx, image.PullRequest{Ref: ref}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(ctx, bytes.NewReader(registrytest.Tar(t, registrytest.Regular("f", fmt.Sprint(i)))), "imported", image.Config{}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Delete(ctx, ref, image.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := s.GarbageCollect(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestKill kills a process that pulls, imports, deletes and collects, and
// then finds a store that works and holds nothing it should not.
func TestKill(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	for i := range 3 {
		f.Add(registrytest.New(t, registrytest.ImageOptions{},
			registrytest.Tar(t, registrytest.Regular("shared", "shared")), registrytest.Tar(t, registrytest.Regular("own", fmt.Sprint(i)))), fmt.Sprint(i))
	}
	root := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		killed(t, root, f.Host(), time.Duration(rand.IntN(400))*time.Millisecond)
		s, err := Open(Options{Root: root})
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		s.Adopt(t.Context(), nil)
		whole(t, s)
		if i%4 == 3 {
			nothingLeft(t, s)
			if left, _ := filepath.Glob(root + "/content/ingest/*"); len(left) > 3 { // partial downloads are kept for a day
				t.Errorf("ingests left: %v", left)
			}
		}
		if err := s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err != nil {
			t.Errorf("round %d: pull afterwards: %v", i, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed runs the child for a while and kills it.
func killed(t *testing.T, root, host string, after time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashRoot+"="+root, crashHost+"="+host)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("%v: %s", err, complaint.String())
	}
	rest := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(out)
		rest <- string(b)
	}()
	time.Sleep(after) // the point of the kill is meant to be random
	_ = cmd.Process.Kill()
	said := <-rest
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Errorf("the child ended by itself: %v\n%s%s", err, said, complaint.String())
	}
}

// whole checks that every image that is listed can be used.
func whole(t *testing.T, s *Store) {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		chain, err := s.Prepare(t.Context(), img)
		if err != nil {
			t.Errorf("prepare %v: %v", img.RepoTags, err)
			continue
		}
		dirs, err := s.Acquire(t.Context(), chain)
		if err != nil {
			t.Errorf("acquire %v: %v", img.RepoTags, err)
			continue
		}
		if len(show(t, dirs)) == 0 {
			t.Errorf("%v is empty", img.RepoTags)
		}
		s.Release(chain)
	}
}

// TestStrays opens a store whose directories hold what its database does not know.
func TestStrays(t *testing.T) {
	root := t.TempDir()
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	importTar(t, s, "kept", "f", "kept")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	strays := []string{"content/blobs/sha256/" + digest.FromString("stray").Encoded(), "snapshots/snapshots/99/fs/x", "snapshots/snapshots/new-1/fs/x"}
	for _, p := range strays {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, p)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, p), []byte("stray"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, Options{Root: root})
	again.Adopt(t.Context(), nil)
	if _, err := again.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range strays {
		if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
			t.Errorf("%s is still there", p)
		}
	}
	whole(t, again)
	nothingLeft(t, again)
}

// TestFullDisk pulls onto a file system that is too small.
func TestFullDisk(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no tmpfs here:", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	img, tiny := incompressible(t), small(t, "a")
	f := registrytest.NewFake(t)
	f.Add(img, "big")
	f.Add(tiny, "small")
	s, err := Open(Options{Root: filepath.Join(dir, "root")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:big"}, nil)
	t.Log(err)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want %v", err, unix.ENOSPC)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "root/content/ingest/*")); err != nil || len(left) != 0 {
		t.Errorf("left on the full disk: %v, %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "root/content/blobs/sha256/*")); err != nil || len(left) != 0 {
		t.Errorf("left on the full disk: %v, %v", left, err)
	}
	if err := s.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:small"}, nil); err != nil {
		t.Errorf("a small image afterwards: %v", err)
	}
}
