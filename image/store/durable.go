package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/rmtree"
)

// The files of a layer are not synced one by one, and nobody who pulls waits
// for them: blobs are on the disk before they count, and a layer that may not
// be there whole after a power cut is unpacked from its blob again. The layer
// is committed with a label that says so; it is taken off after a sync in the
// background. A label of another boot, found when the store is opened, means
// that the kernel went down in between.

const (
	// unsyncedLabel marks a chain whose top layer may not be on the disk; see unsynced.
	unsyncedLabel = "wherry.unsynced"

	// syncDelay keeps a sync out of the way of the end of a pull.
	syncDelay = time.Second

	bootIDFile = "/proc/sys/kernel/random/boot_id" // proc_sys_kernel(5)
)

// unsynced is the value of unsyncedLabel: when the layer was unpacked, and from
// what; or of which image, that was built, it is the chain.
type unsynced struct {
	boot         string
	blob, diffID digest.Digest
	built        digest.Digest
}

// ofBuilt stands in place of the blob of a layer.
const ofBuilt = "built"

func (u unsynced) String() string {
	if u.built != "" {
		return u.boot + " " + ofBuilt + " " + u.built.String()
	}
	return u.boot + " " + u.blob.String() + " " + u.diffID.String()
}

func parseUnsynced(text string) (unsynced, error) {
	f := strings.Fields(text)
	if len(f) != 3 {
		return unsynced{}, fmt.Errorf("label %s=%q is not valid: %w", unsyncedLabel, text, errdefs.ErrInvalidArgument)
	}
	if f[1] == ofBuilt {
		u := unsynced{boot: f[0], built: digest.Digest(f[2])}
		return u, u.built.Validate()
	}
	u := unsynced{boot: f[0], blob: digest.Digest(f[1]), diffID: digest.Digest(f[2])}
	if err := u.blob.Validate(); err != nil {
		return u, err
	}
	return u, u.diffID.Validate()
}

// bootID tells this run of the kernel from others.
func bootID() (string, error) {
	data, err := os.ReadFile(bootIDFile)
	if err != nil {
		return "", fmt.Errorf("find out the boot's ID: %w", err)
	}
	return string(bytes.TrimSpace(data)), nil
}

// syncer brings layers to the disk in the background.
type syncer struct {
	boot string
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
}

func (y *syncer) start(s *Store) {
	y.wake, y.quit = make(chan struct{}, 1), make(chan struct{})
	y.done.Go(func() { y.loop(s) })
	y.poke() // an earlier process may have left some
}

// poke asks for a sync soon. It never blocks.
func (y *syncer) poke() {
	select {
	case y.wake <- struct{}{}:
	default:
	}
}

func (y *syncer) loop(s *Store) {
	ctx := s.context(context.Background())
	for {
		select {
		case <-y.quit:
			select {
			case <-y.wake:
				s.syncLayers(ctx)
			default:
			}
			return
		case <-y.wake:
		}
		select {
		case <-y.quit:
		case <-time.After(syncDelay):
		}
		s.syncLayers(ctx)
	}
}

// stop syncs what waits for it, so that the next start needs not unpack again.
func (y *syncer) stop() {
	y.once.Do(func() {
		if y.quit != nil {
			close(y.quit)
		}
	})
	y.done.Wait()
}

// syncLayers brings all layers to the disk that this boot unpacked. What
// cannot be done now is left to the next sync.
func (s *Store) syncLayers(ctx context.Context) {
	list, err := s.unsyncedLayers(ctx)
	if err == nil {
		list = slices.DeleteFunc(list, func(i snapshots.Info) bool {
			return !strings.HasPrefix(i.Labels[unsyncedLabel], s.sync.boot+" ")
		})
		err = s.synced(ctx, list)
	}
	if err != nil {
		s.log.Warn("sync unpacked layers", "err", err)
	}
}

// unsyncedLayers lists the chains that carry the label, parents first.
func (s *Store) unsyncedLayers(ctx context.Context) ([]snapshots.Info, error) {
	marked := map[string]snapshots.Info{}
	err := s.snap.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Labels[unsyncedLabel] != "" {
			marked[info.Name] = info
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	var list []snapshots.Info
	var add func(name string)
	add = func(name string) {
		if info, ok := marked[name]; ok {
			delete(marked, name)
			add(info.Parent)
			list = append(list, info)
		}
	}
	for name := range marked {
		add(name)
	}
	return list, nil
}

// synced syncs the file system of the layers and takes their labels off.
func (s *Store) synced(ctx context.Context, list []snapshots.Info) error {
	if len(list) == 0 {
		return nil
	}
	if err := s.syncFS(); err != nil {
		return err
	}
	for _, info := range list {
		if err := s.unmark(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

// unmark takes the label off a chain, unless it was removed meanwhile. One that
// was unpacked anew keeps its label; who unpacked it asks for another sync.
func (s *Store) unmark(ctx context.Context, was snapshots.Info) error {
	unlock := s.keys.tryLock("chain:" + was.Name)
	if unlock == nil {
		return nil
	}
	defer unlock()
	is, err := s.snap.Stat(ctx, was.Name)
	if err == nil && is.Created.Equal(was.Created) {
		was.Labels = map[string]string{unsyncedLabel: ""}
		_, err = s.snap.Update(ctx, was, "labels."+unsyncedLabel)
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Boot tells this run of the kernel from others.
func (s *Store) Boot() string { return s.sync.boot }

// Sync brings to the disk what snapshots hold.
func (s *Store) Sync() error { return s.syncFS() }

// syncFS brings everything in the file system of the layers to the disk.
func (s *Store) syncFS() error {
	dir := filepath.Join(s.opts.Root, "snapshots")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// restore unpacks the layers again that a power cut may have damaged. Nothing
// uses the store yet, and no container of an earlier boot is left. A layer that
// cannot be unpacked is removed with all that stands on it.
func (s *Store) restore(ctx context.Context) error {
	list, err := s.unsyncedLayers(ctx)
	if err != nil {
		return err
	}
	var restored []snapshots.Info
	for _, info := range list {
		if strings.HasPrefix(info.Labels[unsyncedLabel], s.sync.boot+" ") {
			continue
		}
		s.log.Info("unpack a layer again, which was not on the disk when the machine went down", "chain", info.Name)
		err := s.unpackAgain(ctx, info)
		if errdefs.IsNotFound(err) && !s.isThere(ctx, info.Name) {
			continue // removed with its parent
		}
		if err != nil {
			s.log.Warn("remove a layer that cannot be unpacked again", "chain", info.Name, "err", err)
			if err := s.removeTree(ctx, info.Name); err != nil {
				return err
			}
			continue
		}
		restored = append(restored, info)
	}
	return s.synced(ctx, restored)
}

func (s *Store) isThere(ctx context.Context, name string) bool {
	_, err := s.snap.Stat(ctx, name)
	return !errdefs.IsNotFound(err)
}

// unpackAgain replaces the files of a layer by what its blob says.
func (s *Store) unpackAgain(ctx context.Context, info snapshots.Info) error {
	u, err := parseUnsynced(info.Labels[unsyncedLabel])
	if err != nil {
		return err
	}
	if !s.isThere(ctx, info.Name) {
		return fmt.Errorf("chain %s: %w", info.Name, errdefs.ErrNotFound)
	}
	if u.built != "" {
		return s.unlink(ctx, info.Name, u.built)
	}
	blob, err := s.ContentStore().Info(ctx, u.blob)
	if err != nil {
		return err
	}
	dir := info.Labels[upperLabel]
	if !s.driver.stacked || dir == "" {
		return fmt.Errorf("storage driver %s has no layer directories: %w", s.driver.name, errdefs.ErrNotImplemented)
	}
	if err := rmtree.Remove(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // it becomes the root of containers
		return err
	}
	implied, err := s.applyLayer(ctx, ocispec.Descriptor{Digest: blob.Digest, Size: blob.Size}, dir, u.diffID, true, sink{})
	if err != nil || info.Parent == "" || len(implied) == 0 {
		return err
	}
	lower, err := s.layerDirs(ctx, digest.Digest(info.Parent))
	if err != nil {
		return err
	}
	return inheritAttributes(dir, lower, implied)
}

// removeTree removes a snapshot and all above it.
func (s *Store) removeTree(ctx context.Context, name string) error {
	var above []string
	err := s.snap.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Parent == name {
			above = append(above, info.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, child := range above {
		if err := s.removeTree(ctx, child); err != nil {
			return err
		}
	}
	if err := s.snap.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
