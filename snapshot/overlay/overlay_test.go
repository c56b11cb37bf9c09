package overlay

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/snapshottest"
	"github.com/wherry-engine/wherry/snapshot/tree"
)

// fixedChains is one chain of two directories.
type fixedChains struct {
	mu    sync.Mutex
	chain digest.Digest
	dirs  []string
	refs  int
}

func (c *fixedChains) Acquire(_ context.Context, d digest.Digest) ([]string, error) {
	if d != c.chain {
		return nil, fmt.Errorf("chain: %w", errdefs.ErrNotFound)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refs++
	return c.dirs, nil
}

func (c *fixedChains) Release(digest.Digest) { c.mu.Lock(); c.refs--; c.mu.Unlock() }

func (c *fixedChains) Adopt(_ context.Context, list []digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refs += len(list)
}

func setup(t *testing.T) (*Driver, *fixedChains) {
	t.Helper()
	root := t.TempDir()
	c := &fixedChains{chain: digest.FromString("base"), dirs: []string{filepath.Join(root, "top"), filepath.Join(root, "bottom")}}
	for name, body := range snapshottest.Base() {
		layer := c.dirs[1]
		if strings.HasPrefix(name, "etc") {
			layer = c.dirs[0]
		}
		p := filepath.Join(layer, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := New(Options{Root: filepath.Join(root, "layers"), Chains: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d, c
}

// extra is what the base adds to snapshottest.Base.
func extra() map[string]string {
	return map[string]string{
		".dockerenv": "", "dev/": "", "dev/pts/": "", "dev/shm/": "", "proc/": "", "sys/": "",
		"etc/hosts": "", "etc/hostname": "", "etc/resolv.conf": "", "etc/mtab": "-> /proc/mounts",
	}
}

// TestBaseLeavesImagesAlone makes a base over an image that has some of its
// entries, and others as links.
func TestBaseLeavesImagesAlone(t *testing.T) {
	lower := t.TempDir()
	for _, err := range []error{
		os.Mkdir(lower+"/real", 0o700), os.Symlink("real", lower+"/etc"), os.Mkdir(lower+"/proc", 0o555), os.WriteFile(lower+"/dev", nil, 0o600),
		os.Chmod(lower, 0o711), //nolint:gosec // a root directory
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "base")
	if err := tree.MakeBase(dir, []string{lower}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{".dockerenv": "", "sys/": ""}, snapshottest.List(t, dir)); d != "" {
		t.Error(d)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestContract(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T) snapshottest.Env {
		d, c := setup(t)
		return snapshottest.Env{Driver: d, Chain: c.chain, Extra: extra(), Reopen: func() snapshot.Driver {
			again, err := New(d.opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = again.Close(context.Background()) })
			return again
		}}
	})
}

func TestChainsAreReleased(t *testing.T) {
	d, c := setup(t)
	for i := range 3 {
		if err := d.Create(t.Context(), container.ID(fmt.Sprint("c", i)), c.chain); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := d.Remove(t.Context(), container.ID(fmt.Sprint("c", i))); err != nil {
			t.Fatal(err)
		}
	}
	if c.refs != 0 {
		t.Errorf("%d references left", c.refs)
	}
}

func TestStartRemovesTheUnfinished(t *testing.T) {
	d, c := setup(t)
	if err := d.Create(t.Context(), "whole", c.chain); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"half/upper", ".trash/old-1/x"} {
		if err := os.MkdirAll(filepath.Join(d.opts.Root, p), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(d.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"half", ".trash/old-1"} {
		if _, err := os.Lstat(filepath.Join(d.opts.Root, p)); err == nil {
			t.Errorf("%s is still there", p)
		}
	}
	ids, err := again.List(t.Context())
	if err != nil || len(ids) != 1 || ids[0] != "whole" {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := again.Root(t.Context(), "half"); !errdefs.IsNotFound(err) {
		t.Errorf("half: %v", err)
	}
}

// TestDiffOfMovingFiles reads a layer while it changes.
func TestDiffOfMovingFiles(t *testing.T) {
	d, c := setup(t)
	if err := d.Create(t.Context(), "c", c.chain); err != nil {
		t.Fatal(err)
	}
	upper := filepath.Join(d.dir("c"), upperName)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			p := filepath.Join(upper, fmt.Sprint("f", i%8))
			_ = os.RemoveAll(p)
			switch i % 3 {
			case 0:
				_ = os.Symlink("/etc/passwd", p)
			case 1:
				_ = os.Mkdir(p, 0o700)
			default:
				_ = os.WriteFile(p, []byte(strings.Repeat("x", i%5000)), 0o600)
			}
		}
	})
	for range 200 {
		if err := d.Diff(t.Context(), "c", io.Discard); err != nil {
			t.Error(err)
			break
		}
		if _, err := d.Changes(t.Context(), "c"); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkCreate(b *testing.B) {
	root := b.TempDir()
	c := &fixedChains{chain: digest.FromString("base"), dirs: []string{filepath.Join(root, "top")}}
	if err := os.MkdirAll(c.dirs[0], 0o755); err != nil {
		b.Fatal(err)
	}
	d, err := New(Options{Root: filepath.Join(root, "layers"), Chains: c})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close(context.Background())
	n := 0
	for b.Loop() {
		n++
		if err := d.Create(b.Context(), container.ID(fmt.Sprint(n)), c.chain); err != nil {
			b.Fatal(err)
		}
	}
}
