package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/internal/testenv"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

// pulled opens a store on the root and pulls x:1 into it.
func pulled(t *testing.T, root, host string) (*Store, image.Image) {
	t.Helper()
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(t.Context(), image.PullRequest{Ref: host + "/x:1"}, nil); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), host+"/x:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, img
}

// dirsOfImage are the layer directories of an image, topmost first.
func dirsOfImage(t *testing.T, s *Store, img image.Image) []string {
	t.Helper()
	chain, err := s.Prepare(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := s.layerDirs(s.context(t.Context()), chain)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func TestSyncTakesLabelsOff(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	f.Add(twoLayers(t, registrytest.ImageOptions{}), "1")
	s, _ := pulled(t, t.TempDir(), f.Host())
	ctx := s.context(t.Context())
	if list, err := s.unsyncedLayers(ctx); err != nil || len(list) != 2 {
		t.Fatalf("after a pull %d layers are not on the disk, %v; want 2", len(list), err)
	}
	testenv.Eventually(t, "all layers are synced", func() bool {
		list, err := s.unsyncedLayers(ctx)
		return err == nil && len(list) == 0
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUnpackedAnewKeepsLabel has a layer removed and unpacked anew during a sync.
func TestUnpackedAnewKeepsLabel(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	f.Add(twoLayers(t, registrytest.ImageOptions{}), "1")
	s, _ := pulled(t, t.TempDir(), f.Host())
	s.sync.stop()
	ctx := s.context(t.Context())
	ref := f.Host() + "/x:1"
	chains := func() (list []snapshots.Info) {
		if err := s.snap.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			list = append(list, info)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := chains()
	s.Adopt(ctx, nil)
	if _, err := s.Delete(ctx, ref, image.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(ctx, image.PullRequest{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.synced(ctx, before); err != nil {
		t.Fatal(err)
	}
	if list, err := s.unsyncedLayers(ctx); err != nil || len(list) != 2 {
		t.Errorf("labels: %v, %v; want both", list, err)
	}
	if err := s.synced(ctx, chains()); err != nil {
		t.Fatal(err)
	}
	if list, err := s.unsyncedLayers(ctx); err != nil || len(list) != 0 {
		t.Errorf("labels after a sync: %v, %v", list, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCloseSyncs pulls and closes at once: nothing is left to do at the next start.
func TestCloseSyncs(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	f.Add(twoLayers(t, registrytest.ImageOptions{}), "1")
	root := t.TempDir()
	s, _ := pulled(t, root, f.Host())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Root: root})
	if list, err := again.unsyncedLayers(again.context(t.Context())); err != nil || len(list) != 0 {
		t.Errorf("labels after a clean end: %v, %v", list, err)
	}
}

// asIfOfAnotherBoot makes all layers of an image look in the database as a
// power cut leaves them: unpacked in another boot and never synced.
func asIfOfAnotherBoot(t *testing.T, root string, src registrytest.Image) {
	t.Helper()
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	var cfg ocispec.Image
	if err := json.Unmarshal(src.Config.Data, &cfg); err != nil {
		t.Fatal(err)
	}
	for i, chain := range identity.ChainIDs(slices.Clone(cfg.RootFS.DiffIDs)) {
		u := unsynced{boot: "another-boot", blob: src.Layers[i].Digest, diffID: cfg.RootFS.DiffIDs[i]}
		info := snapshots.Info{Name: chain.String(), Labels: map[string]string{unsyncedLabel: u.String()}}
		if _, err := s.snap.Update(s.context(t.Context()), info, "labels."+unsyncedLabel); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut empties and removes files of unpacked layers and opens the
// store as another boot would: the layers are as they were, with everything above them.
func TestPowerCut(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	src := twoLayers(t, registrytest.ImageOptions{})
	f.Add(src, "1")
	root := t.TempDir()
	s, img := pulled(t, root, f.Host())
	dirs := dirsOfImage(t, s, img)
	want := []map[string]string{describe(t, dirs[0]), describe(t, dirs[1])}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	asIfOfAnotherBoot(t, root, src)
	// One layer lost what was in its files, the other even its directory.
	err := filepath.WalkDir(dirs[1], func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Truncate(path, 0)
		}
		return err
	})
	if err := errors.Join(err, os.RemoveAll(filepath.Dir(dirs[0]))); err != nil {
		t.Fatal(err)
	}

	again := open(t, Options{Root: root})
	if got := dirsOfImage(t, again, img); !cmp.Equal(got, dirs) {
		t.Errorf("directories moved: %s", cmp.Diff(dirs, got))
	}
	for i, dir := range dirs {
		if diff := cmp.Diff(want[i], describe(t, dir)); diff != "" {
			t.Errorf("layer %d: %s", i, diff)
		}
	}
	if list, err := again.unsyncedLayers(again.context(t.Context())); err != nil || len(list) != 0 {
		t.Errorf("labels afterwards: %v, %v", list, err)
	}
}

// TestPowerCutAfterBuild empties the files of a chain that was linked to a
// builder's snapshot, as another boot finds it: it is unpacked from the blobs.
func TestPowerCutAfterBuild(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	f.Add(twoLayers(t, registrytest.ImageOptions{}), "1")
	root := t.TempDir()
	s, img := pulled(t, root, f.Host())
	ctx := s.context(t.Context())
	var want []map[string]string
	for _, dir := range dirsOfImage(t, s, img) {
		want = append(want, describe(t, dir))
	}
	info, err := s.snap.Stat(ctx, img.Chain.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.removeTree(ctx, info.Parent); err != nil {
		t.Fatal(err)
	}
	if _, err := s.snap.Prepare(ctx, "step", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.snap.Commit(ctx, "result", "step"); err != nil {
		t.Fatal(err)
	}
	s.sync.stop() // so that it does not take the label off
	if err := s.Link(ctx, img.Target, img.Chain, "result"); err != nil {
		t.Fatal(err)
	}
	info, err = s.snap.Stat(ctx, img.Chain.String())
	if err != nil || info.Parent != "result" {
		t.Fatalf("linked: %+v, %v", info, err)
	}
	label := unsynced{boot: s.sync.boot, built: img.Manifest.Digest}
	if got := info.Labels[unsyncedLabel]; got != label.String() {
		t.Errorf("label: %q, want %q", got, label)
	}
	label.boot = "another-boot"
	info = snapshots.Info{Name: info.Name, Labels: map[string]string{unsyncedLabel: label.String()}}
	if _, err := s.snap.Update(ctx, info, "labels."+unsyncedLabel); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	again := open(t, Options{Root: root})
	dirs := dirsOfImage(t, again, img)
	if len(dirs) != len(want) {
		t.Fatalf("%d layers, want %d", len(dirs), len(want))
	}
	for i, dir := range dirs {
		if diff := cmp.Diff(want[i], describe(t, dir)); diff != "" {
			t.Errorf("layer %d: %s", i, diff)
		}
	}
}

// TestPowerCutWithoutBlob loses also the blob of the lower layer: nothing
// stands on it any more, and the image is pulled again.
func TestPowerCutWithoutBlob(t *testing.T) {
	needsRoot(t)
	f := registrytest.NewFake(t)
	src := twoLayers(t, registrytest.ImageOptions{})
	f.Add(src, "1")
	root := t.TempDir()
	s, img := pulled(t, root, f.Host())
	want := describe(t, dirsOfImage(t, s, img)[1])
	if err := s.ContentStore().Delete(s.context(t.Context()), src.Layers[0].Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	asIfOfAnotherBoot(t, root, src)
	again := open(t, Options{Root: root})
	err := again.snap.Walk(again.context(t.Context()), func(_ context.Context, info snapshots.Info) error {
		t.Errorf("left: %v", info)
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := again.Pull(t.Context(), image.PullRequest{Ref: f.Host() + "/x:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, describe(t, dirsOfImage(t, again, img)[1])); diff != "" {
		t.Error(diff)
	}
}
