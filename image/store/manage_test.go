package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

// importTar makes a local image of one file.
func importTar(t *testing.T, s *Store, ref, file, body string) digest.Digest {
	t.Helper()
	id, err := s.Import(t.Context(), bytes.NewReader(registrytest.Tar(t, registrytest.Regular(file, body))), ref, image.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDelete(t *testing.T) {
	type user struct {
		id      string
		running bool
	}
	for name, c := range map[string]struct {
		names []string
		by    string // "ID" for the image's
		force bool
		user  user
		want  []image.Deleted
		fail  string
		left  int // records
	}{
		"last name":       {[]string{"a:1"}, "a:1", false, user{}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"one of two":      {[]string{"a:1", "a:2"}, "a:1", false, user{}, []image.Deleted{{Untagged: "a:1"}}, "", 1},
		"by digest":       {[]string{"a:1"}, "a@ID", false, user{}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"by ID":           {[]string{"a:1"}, "ID", false, user{}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"by ID, two tags": {[]string{"a:1", "a:2"}, "ID", false, user{}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a:2"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"by ID, two repositories": {[]string{"a:1", "b:1"}, "ID", false, user{}, nil,
			"conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories", 2},
		"by ID, two repositories, forced": {[]string{"a:1", "b:1"}, "ID", true, user{},
			[]image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Untagged: "b:1"}, {Untagged: "b@ID"}, {Deleted: "ID"}}, "", 0},
		"used": {[]string{"a:1"}, "a:1", false, user{"0123456789abcdef", false}, nil,
			`conflict: unable to remove repository reference "a:1" (must force) - container 0123456789ab is using its referenced image SHORT`, 1},
		"used, forced":        {[]string{"a:1"}, "a:1", true, user{"c", false}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"running, forced":     {[]string{"a:1"}, "a:1", true, user{"c", true}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}}, "", 1},
		"used, not the last":  {[]string{"a:1", "b:1"}, "b:1", false, user{"c", true}, []image.Deleted{{Untagged: "b:1"}, {Untagged: "b@ID"}}, "", 1},
		"by ID, running":      {[]string{"a:1"}, "ID", true, user{"c", true}, nil, "conflict: unable to delete SHORT (cannot be forced) - image is being used by running container c", 1},
		"by ID, used":         {[]string{"a:1"}, "ID", false, user{"c", false}, nil, "conflict: unable to delete SHORT (must be forced) - image is being used by stopped container c", 1},
		"by ID, used, forced": {[]string{"a:1"}, "ID", true, user{"c", false}, []image.Deleted{{Untagged: "a:1"}, {Untagged: "a@ID"}, {Deleted: "ID"}}, "", 0},
		"unknown":             {[]string{"a:1"}, "b:1", false, user{}, nil, "No such image: b:1", 1},
		"nameless":            {nil, "ID", false, user{}, []image.Deleted{{Deleted: "ID"}}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, Options{})
			s.Adopt(t.Context(), nil)
			first := ""
			if len(c.names) > 0 {
				first = c.names[0]
			}
			id := importTar(t, s, first, "f", name)
			for _, n := range c.names[min(1, len(c.names)):] {
				if err := s.Tag(t.Context(), first, n); err != nil {
					t.Fatal(err)
				}
			}
			fill := func(x string) string {
				return strings.ReplaceAll(strings.ReplaceAll(x, "ID", id.String()), "SHORT", short(id))
			}
			got, err := s.Delete(t.Context(), fill(c.by), image.DeleteOptions{Force: c.force, InUse: func(i, _ digest.Digest) (string, bool) {
				if i != id {
					t.Errorf("asked for %s", i)
				}
				return c.user.id, c.user.running
			}})
			var want []image.Deleted
			for _, d := range c.want {
				want = append(want, image.Deleted{Untagged: fill(d.Untagged), Deleted: fill(d.Deleted)})
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if c.fail == "" && err != nil || c.fail != "" && (err == nil || !strings.HasPrefix(err.Error(), fill(c.fail))) {
				t.Errorf("%v, want %q", err, fill(c.fail))
			}
			if records, err := s.namesOf(s.context(t.Context()), id); err != nil || len(records) != c.left {
				t.Errorf("%d records left, want %d", len(records), c.left)
			}
			nothingLeft(t, s)
		})
	}
}

func TestRetagLeavesDangling(t *testing.T) {
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	old := importTar(t, s, "a", "f", "old")
	neu := importTar(t, s, "a", "f", "new")
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for _, img := range list {
		if img.Dangling != (img.ID == old) || (img.ID == neu) != (len(img.RepoTags) == 1) {
			t.Errorf("%+v", img)
		}
	}
	if err := s.Tag(t.Context(), old.String(), "a"); err != nil { // and back
		t.Fatal(err)
	}
	done, freed, err := s.Prune(t.Context(), image.PruneOptions{DanglingOnly: true})
	if err != nil || len(done) != 1 || done[0].Deleted != neu.String() || freed <= 0 {
		t.Errorf("%v, %d, %v", done, freed, err)
	}
	nothingLeft(t, s)
}

func TestPrune(t *testing.T) {
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	cfg := image.Config{}
	cfg.Config.Labels = map[string]string{"keep": "yes"}
	kept, err := s.Import(t.Context(), bytes.NewReader(registrytest.Tar(t, registrytest.Regular("k", "k"))), "kept", cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := importTar(t, s, "used", "u", "u")
	gone := importTar(t, s, "gone", "g", "g")
	before, err := s.DiskUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opts := image.PruneOptions{
		Labels: func(l map[string]string) bool { return l["keep"] != "yes" },
		InUse:  func(id, _ digest.Digest) (string, bool) { return map[digest.Digest]string{used: "c"}[id], false },
	}
	done, freed, err := s.Prune(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]image.Deleted{{Untagged: "gone:latest"}, {Untagged: "gone@" + gone.String()}, {Deleted: gone.String()}}, done); d != "" {
		t.Error(d)
	}
	after, err := s.DiskUsage(t.Context())
	if err != nil || before.Total-after.Total != freed || freed == 0 {
		t.Errorf("%d - %d, said %d, %v", before.Total, after.Total, freed, err)
	}
	opts.Until = time.Now().Add(-time.Hour)
	opts.InUse, opts.Labels = nil, nil
	if done, _, err := s.Prune(t.Context(), opts); err != nil || len(done) != 0 {
		t.Errorf("%v, %v", done, err)
	}
	if _, err := s.Resolve(t.Context(), kept.String(), nil); err != nil {
		t.Error(err)
	}
}

// TestContainerKeepsChain removes an image that a layer uses, commits from it,
// and lets everything go.
func TestContainerKeepsChain(t *testing.T) {
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	ctx := t.Context()
	importTar(t, s, "base", "f", "base")
	img, err := s.Resolve(ctx, "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, img.Chain); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, "base", image.DeleteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := s.layerDirs(s.context(ctx), img.Chain)
	if err != nil || show(t, dirs)["/f"] != "base" {
		t.Fatalf("the chain is lost: %v", err)
	}
	parent, err := s.ResolveManifest(ctx, img.Manifest.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Resolve(ctx, img.ID.String(), nil); err != nil || again.Chain != img.Chain {
		t.Errorf("by ID: %v", err)
	}
	if _, err := s.Resolve(ctx, "base", nil); !errdefs.IsNotFound(err) {
		t.Errorf("by name: %v", err)
	}
	cfg := parent.Config
	cfg.Comment, cfg.Author = "why", "me"
	if err := image.ApplyChanges(&cfg, []string{`CMD ["/f"]`, "ENV A=1 B=\"2 3\"", "EXPOSE 80 53/udp", "LABEL x=y"}); err != nil {
		t.Fatal(err)
	}
	id, err := s.Commit(ctx, &parent, cfg, "child:1", func(w io.Writer) error {
		_, err := w.Write(registrytest.Tar(t, registrytest.Regular("g", "child")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	child, err := s.Resolve(ctx, "child:1", nil)
	if err != nil || child.ID != id {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"A=1", "B=2 3"}, child.Config.Config.Env); d != "" {
		t.Error(d)
	}
	steps, err := s.History(ctx, child)
	if err != nil || len(steps) != 2 || steps[0].Comment != "why" || steps[0].Author != "me" || steps[0].Size == 0 {
		t.Errorf("%+v, %v", steps, err)
	}
	d, err := s.Details(ctx, child)
	if err != nil || d.ParentID != img.Manifest.Digest {
		t.Errorf("%v, %v", d.ParentID, err)
	}
	s.Release(img.Chain)
	if _, err := s.Resolve(ctx, img.ID.String(), nil); !errdefs.IsNotFound(err) {
		t.Errorf("with no container: %v", err)
	}
	nothingLeft(t, s)
}

// TestContainerKeepsIndex is the same for an image with several platforms.
func TestContainerKeepsIndex(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	remote := registrytest.Remote{Base: "http://" + addr, Repo: "m"}
	img := small(t, "a")
	remote.Push(t, img, "one")
	x := registrytest.Index(t, false, map[string]registrytest.Image{"linux/amd64": img})
	remote.Put(t, x, "1")
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	ctx := t.Context()
	if err := s.Pull(ctx, image.PullRequest{Ref: addr + "/m:1"}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(ctx, addr+"/m:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, got.Chain); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, addr+"/m:1", image.DeleteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := s.Resolve(ctx, x.Digest.String(), nil); err != nil || again.ID != x.Digest || again.Chain != got.Chain {
		t.Errorf("%+v, %v", again.ID, err)
	}
	s.Release(got.Chain)
	nothingLeft(t, s)
}

func TestCommitThatFails(t *testing.T) {
	s := open(t, Options{})
	boom := errors.New("boom")
	_, err := s.Commit(t.Context(), nil, image.Config{}, "x", func(w io.Writer) error {
		_, _ = w.Write([]byte(strings.Repeat("x", 100000)))
		return boom
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	if _, err := s.Commit(t.Context(), nil, image.Config{}, "x", func(w io.Writer) error {
		_, err := w.Write([]byte("no tar at all, but long enough to be read as one header"))
		return err
	}); err == nil {
		t.Error("garbage was taken for a layer")
	}
	nothingLeft(t, s)
}

func TestImportRefuses(t *testing.T) {
	s := open(t, Options{})
	for name, body := range map[string]string{"empty gzip": "\x1f\x8b", "xz": "\xfd7zXZ\x00....", "text": strings.Repeat("hello ", 200)} {
		if _, err := s.Import(t.Context(), strings.NewReader(body), "x", image.Config{}, nil); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			t.Log(name, err)
		}
	}
	for _, ref := range []string{"Bad", "a@sha256:" + strings.Repeat("a", 64)} {
		if _, err := s.Import(t.Context(), strings.NewReader(""), ref, image.Config{}, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	nothingLeft(t, s)
}

// legacyArchive is what `docker save` of old versions writes.
func legacyArchive(t *testing.T, tags []string) []byte {
	t.Helper()
	layer := registrytest.Tar(t, registrytest.Regular("f", "legacy"))
	img := registrytest.New(t, registrytest.ImageOptions{Docker: true}, layer)
	id := img.Config.Digest.Encoded()
	m, err := json.Marshal([]map[string]any{{"Config": id + ".json", "RepoTags": tags, "Layers": []string{"abc/layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	return registrytest.Tar(t,
		registrytest.Dir("abc/", 0o755), registrytest.Regular("abc/VERSION", "1.0"), registrytest.Regular("abc/layer.tar", string(layer)),
		registrytest.Regular(id+".json", string(img.Config.Data)), registrytest.Regular("manifest.json", string(m)))
}

func TestLoadLegacy(t *testing.T) {
	s := open(t, Options{})
	s.Adopt(t.Context(), nil)
	for name, c := range map[string]struct {
		tags []string
		want string
	}{"tags": {[]string{"old:1", "old:2"}, "Loaded image: old:2"}, "none": {nil, "Loaded image ID: sha256:"}} {
		var rec record
		if err := s.Load(t.Context(), bytes.NewReader(legacyArchive(t, c.tags)), nil, &rec); err != nil {
			t.Fatal(err)
		}
		if last := rec.lines[len(rec.lines)-1]; !strings.HasPrefix(last, c.want) {
			t.Errorf("%s: %v", name, rec.lines)
		}
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Dangling || len(list[0].RepoTags) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	nothingLeft(t, s)
}

func TestLoadRefuses(t *testing.T) {
	s := open(t, Options{})
	img := small(t, "a")
	for name, files := range map[string][]registrytest.File{
		"no image":      {registrytest.Regular("x", "y")},
		"empty":         nil,
		"no config":     {registrytest.Regular("manifest.json", `[{"Config":"gone.json","Layers":[]}]`)},
		"climbing path": {registrytest.Regular("manifest.json", `[{"Config":"../../../../etc/passwd","Layers":["../../x"]}]`), {Header: tar.Header{Name: "../../x"}, Body: "x"}},
		"link out":      {registrytest.Regular("manifest.json", `[{"Config":"c","Layers":["l"]}]`), {Header: tar.Header{Name: "c", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}},
		"no layers": {
			registrytest.Regular("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
			registrytest.Regular("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, img.Manifest.MediaType, img.Manifest.Digest, img.Manifest.Size)),
			registrytest.Regular("blobs/sha256/"+img.Manifest.Digest.Encoded(), string(img.Manifest.Data)),
			registrytest.Regular("blobs/sha256/"+img.Config.Digest.Encoded(), string(img.Config.Data)),
		},
		"wrong blob": {
			registrytest.Regular("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
			registrytest.Regular("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, img.Manifest.MediaType, img.Manifest.Digest, img.Manifest.Size)),
			registrytest.Regular("blobs/sha256/"+img.Manifest.Digest.Encoded(), "something else"),
		},
	} {
		err := s.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, files...)), nil, nil)
		t.Logf("%s: %v", name, err)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	nothingLeft(t, s)
}

func TestPushIndexAndMount(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	remote := registrytest.Remote{Base: "http://" + addr, Repo: "src"}
	imgs := map[string]registrytest.Image{}
	for _, arch := range []string{"amd64", "arm64"} {
		imgs["linux/"+arch] = registrytest.New(t, registrytest.ImageOptions{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}, registrytest.Tar(t, registrytest.Regular("a", arch)))
		remote.Push(t, imgs["linux/"+arch], imgs["linux/"+arch].Manifest.Digest.String())
	}
	x := registrytest.Index(t, true, imgs)
	remote.Put(t, x, "1")
	s := open(t, Options{})
	ctx := t.Context()
	pull := func(arch string) {
		if err := s.Pull(ctx, image.PullRequest{Ref: addr + "/src:1", Platform: &ocispec.Platform{OS: "linux", Architecture: arch}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	push := func(ref string, want digest.Digest) *record {
		t.Helper()
		if err := s.Tag(ctx, addr+"/src:1", ref); err != nil {
			t.Fatal(err)
		}
		var rec record
		if err := s.Push(ctx, image.PushRequest{Ref: ref}, &rec); err != nil {
			t.Fatal(err)
		}
		got, err := s.Registry().Inspect(ctx, mustRef(t, ref), nil)
		if err != nil || got.Descriptor.Digest != want {
			t.Errorf("%s: %v, %v, want %v", ref, got.Descriptor.Digest, err, want)
		}
		return &rec
	}
	pull("amd64")
	rec := push(addr+"/one:1", imgs["linux/amd64"].Manifest.Digest)
	if want := short(imgs["linux/amd64"].Layers[0].Digest) + ": Mounted from src"; !rec.has(want) {
		t.Errorf("no %q in %v", want, rec.lines)
	}
	pull("arm64")
	push(addr+"/all:1", x.Digest)
	if err := s.Push(ctx, image.PushRequest{Ref: addr + "/never:1"}, nil); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "An image does not exist locally with the tag: "+addr+"/never") {
		t.Errorf("%v", err)
	}
}

// TestSweepIngest: what a process killed at the edges of a download left goes
// at the next start; a partial download that can be resumed stays.
func TestSweepIngest(t *testing.T) {
	root := t.TempDir()
	ingest := filepath.Join(root, "content", "ingest")
	for name, files := range map[string][]string{"empty": nil, "begun": {"ref"}, "ended": {"startedat"}, "whole": {"ref", "data"}} {
		if err := os.MkdirAll(filepath.Join(ingest, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(ingest, name, f), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	collected := filepath.Join(ingest, "collection")
	if err := os.Mkdir(collected, 0o700); err != nil {
		t.Fatal(err)
	}
	for f, text := range map[string]string{"ref": "wherry/1/" + tidyPrefix + "57d8", "data": "x"} {
		if err := os.WriteFile(filepath.Join(collected, f), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &Store{opts: Options{Root: root}}
	if err := s.sweepIngest(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(ingest)
	if err != nil || len(left) != 1 || left[0].Name() != "whole" {
		t.Errorf("left: %v %v, want the whole one", left, err)
	}
}
