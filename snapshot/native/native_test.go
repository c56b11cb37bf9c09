package native

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"maps"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/image/store"
	"github.com/wherry-engine/wherry/registry/registrytest"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/snapshottest"
)

func TestContract(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T) snapshottest.Env {
		root := t.TempDir()
		s, err := store.Open(store.Options{Root: root, SnapshotterName: "vfs"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		var files []registrytest.File
		for _, name := range slices.Sorted(maps.Keys(snapshottest.Base())) {
			if strings.HasSuffix(name, "/") {
				files = append(files, registrytest.Dir(name, 0o755))
				continue
			}
			files = append(files, registrytest.Regular(name, snapshottest.Base()[name]))
		}
		if _, err := s.Import(t.Context(), bytes.NewReader(registrytest.Tar(t, files...)), "base", image.Config{}, nil); err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(t.Context(), "base", nil)
		if err != nil {
			t.Fatal(err)
		}
		open := func() snapshot.Driver {
			d, err := New(context.Background(), Options{
				Root: filepath.Join(root, "layers"), Chains: s, Snapshots: s.Snapshotter(), SnapshotterName: s.SnapshotterName(), Namespace: s.Namespace(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.GarbageCollect(context.Background()); err != nil {
				t.Fatal(err)
			}
			return d
		}
		return snapshottest.Env{Driver: open(), Chain: img.Chain, Reopen: open, Extra: map[string]string{
			".dockerenv": "", "dev/": "", "dev/pts/": "", "dev/shm/": "", "proc/": "", "sys/": "",
			"etc/hosts": "", "etc/hostname": "", "etc/resolv.conf": "", "etc/mtab": "-> /proc/mounts",
		}}
	})
}
