package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/wherry-engine/wherry/internal/testenv"
)

const dockerfile = `FROM busybox AS builder
ARG GREETING=none
ENV WHO=builder
WORKDIR /src
COPY input.txt .
RUN echo "$GREETING from $WHO" >made.txt && cat input.txt >>made.txt && echo cook:x:1001:1001::/:/bin/sh >>/etc/passwd

FROM busybox
COPY --from=builder /src/made.txt /made.txt
COPY --from=builder /etc/passwd /etc/passwd
RUN hostname >/built-on && ip route | grep -q default && echo online >/network
USER app
WORKDIR /home/app
ENV LAST=stage
CMD ["sh", "-c", "cat /made.txt; id -un; pwd; echo $LAST"]
`

// TestBuild builds a Dockerfile of two stages in both ways the API has.
func TestBuild(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	d.Image(t, "busybox")
	for _, tt := range []struct {
		name string
		cli  testenv.CLI
		args []string
	}{
		{"wherry", d.Wherry(t), nil},
		{"classic", d.Docker(t).With("DOCKER_BUILDKIT=0"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "Dockerfile"), dockerfile)
			write(t, filepath.Join(dir, "input.txt"), "a line of "+tt.name+"\n")
			image := "built-" + tt.name
			args := append([]string{"build", "-t", image, "--build-arg", "GREETING=hello"}, tt.args...)
			tt.cli.OK(t, append(args, dir)...)
			want := "hello from builder\na line of " + tt.name + "\napp\n/home/app\nstage"
			equal(t, "the image", tt.cli.OK(t, "run", "--rm", image), want)
			equal(t, "network in the build", tt.cli.OK(t, "run", "--rm", image, "cat", "/network"), "online")

			again := tt.cli.Try(t, append(args, dir)...)
			if out := again.All(); again.Code != 0 || !strings.Contains(out, "CACHED") && !strings.Contains(out, "Using cache") {
				t.Errorf("the second build (%d) used no cache:\n%s", again.Code, out)
			}
			write(t, filepath.Join(dir, "Dockerfile"), "FROM busybox\nRUN echo about to fail; exit 7\n")
			bad := tt.cli.Try(t, append(args, dir)...)
			if bad.Code == 0 || !strings.Contains(bad.All(), "7") {
				t.Errorf("a failing step: %d\n%s", bad.Code, bad.All())
			}
			write(t, filepath.Join(dir, "Dockerfile"), "FROM busybox\nNOSUCH instruction\n")
			bad = tt.cli.Try(t, append(args, dir)...)
			if bad.Code == 0 || !strings.Contains(strings.ToLower(bad.All()), "unknown instruction") {
				t.Errorf("an unknown instruction: %d\n%s", bad.Code, bad.All())
			}
		})
	}
}

// TestClassicLines looks at the lines that scripts read: each instruction with
// its number and text, whether it makes a layer or not.
func TestClassicLines(t *testing.T) {
	t.Parallel()
	d := shared(t)
	d.Image(t, "busybox")
	const lines = `Step 1/9 : ARG BASE=busybox
Step 2/9 : FROM $BASE AS first
Step 3/9 : LABEL a=b
Step 4/9 : RUN echo one
one
Step 5/9 : FROM busybox
Step 6/9 : ENV X=1
Step 7/9 : COPY --from=first /etc/passwd /p
Step 8/9 : USER nobody
Step 9/9 : CMD ["sh"]
Successfully built`
	var text strings.Builder
	for line := range strings.Lines(lines) {
		if _, instruction, ok := strings.Cut(line, " : "); ok {
			text.WriteString(instruction)
		}
	}
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		cli = cli.With("DOCKER_BUILDKIT=0")
		dir := t.TempDir()
		write(t, filepath.Join(dir, "Dockerfile"), text.String())
		contains(t, "output", cli.OK(t, "build", "--no-cache", dir), lines)
		out := cli.Try(t, "build", "--no-cache", "--target", "first", dir).All()
		contains(t, "output up to the target", out, "Step 4/4 : RUN echo one")
	})
}

// TestBuildCgroup looks where steps are accounted: beside the containers, or
// below the parent that the client names.
func TestBuildCgroup(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	ours, mine := "/"+name(t), "/"+name(t)
	d := testenv.Start(t, testenv.Options{Args: []string{"--cgroup-parent", ours}})
	d.Image(t, "busybox")
	cli := d.Wherry(t)
	const dockerfile = "FROM busybox\nRUN cat /proc/self/cgroup\n"
	contains(t, "the daemon's parent", cli.OKInput(t, strings.NewReader(dockerfile), "build", "--no-cache", "-"), ours+"/build-")
	contains(t, "the client's parent", cli.OKInput(t, strings.NewReader(dockerfile), "build", "--no-cache", "--cgroup-parent", mine, "-"), mine+"/build-")
	for _, dir := range []string{"/sys/fs/cgroup" + mine, "/sys/fs/cgroup/*" + mine} {
		left, _ := filepath.Glob(dir)
		for _, l := range left {
			if err := os.Remove(l); err != nil { // the user's own parent stays, empty
				t.Error(err)
			}
		}
	}
}

// TestBuildUsage looks at what `system df` says of a build: a layer belongs to
// the images as long as one of them needs it, else to the build cache, and never
// to both.
func TestBuildUsage(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	cli := d.Wherry(t)
	cli.OK(t, "run", "--rm", d.Image(t, "busybox"), "true") // so it is unpacked
	usage := func() (images, cache int64) {
		t.Helper()
		var u struct {
			LayersSize int64
			BuildCache []struct {
				Size   int64
				Shared bool
			}
		}
		if err := json.Unmarshal([]byte(d.API(t, 200, "GET", "/v1.41/system/df", "")), &u); err != nil {
			t.Fatal(err)
		}
		for _, r := range u.BuildCache {
			if !r.Shared {
				cache += r.Size
			}
		}
		return u.LayersSize / 1e6, cache / 1e6
	}
	base, _ := usage()
	const dockerfile = "FROM busybox AS big\nRUN head -c 20000000 /dev/urandom >/f && echo x >/small\n" +
		"FROM busybox\nCOPY --from=big /small /\nRUN head -c 10000000 /dev/urandom >/f\n"
	cli.OKInput(t, strings.NewReader(dockerfile), "build", "-t", "built", "-")
	// The image is a layer and its blob, and the base once more, which BuildKit
	// unpacks under a name of its own.
	images, cache := usage()
	if more := images - base; more < 20 || more > 25 || cache != 20 {
		t.Errorf("built: images %d MB over %d MB, cache %d MB; want 20 to 25 and 20", more, base, cache)
	}
	cli.OK(t, "rmi", "built")
	images, cache = usage()
	if images != base || cache < 30 {
		t.Errorf("image removed: images %d MB, cache %d MB; want %d, and 30 or more", images, cache, base)
	}
}

// TestBuildAfterPowerCut finds the build cache as another boot does that ended
// before it was on the disk: nothing of it is used.
func TestBuildAfterPowerCut(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	d.Image(t, "busybox")
	cli := d.Wherry(t)
	unsynced := filepath.Join(d.DataRoot, "buildkit/unsynced")
	build := func(to string) {
		t.Helper()
		dockerfile := "FROM busybox AS first\nRUN echo precious >/precious\nFROM busybox\nCOPY --from=first /precious /" + to + "\n"
		cli.OKInput(t, strings.NewReader(dockerfile), "build", "-t", to, "-")
	}
	build("one")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(unsynced); !os.IsNotExist(err) {
		t.Errorf("%s after a clean end: %v", unsynced, err)
	}
	lost, err := filepath.Glob(filepath.Join(d.DataRoot, "snapshots/snapshots/*/fs/precious"))
	if err != nil || len(lost) == 0 {
		t.Fatalf("the cached step's file: %v, %v", lost, err)
	}
	for _, name := range lost {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	write(t, unsynced, "another-boot")
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	build("two")
	equal(t, "built with an older cache", cli.OK(t, "run", "--rm", "two", "cat", "/two"), "precious")
	equal(t, "the image from before", cli.OK(t, "run", "--rm", "one", "cat", "/one"), "precious")
	testenv.Eventually(t, "nothing to be lost", func() bool {
		_, err := os.Lstat(unsynced)
		return os.IsNotExist(err)
	})
}

// TestBuildPruneLeavesNothing looks into BuildKit's databases and the engine's
// after all of the build cache was deleted.
func TestBuildPruneLeavesNothing(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	d.Image(t, "busybox")
	cli := d.Wherry(t)
	const snapshots, blobs = "snapshots/snapshots/*", "content/blobs/sha256/*"
	entries := func(dir string) []string {
		list, err := filepath.Glob(filepath.Join(d.DataRoot, dir))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := map[string][]string{snapshots: entries(snapshots), blobs: entries(blobs)}
	for _, text := range []string{"one", "two", "three"} {
		cli.OKInput(t, strings.NewReader("FROM busybox AS a\nRUN echo "+text+" >/f\nFROM busybox\nCOPY --from=a /f /\nRUN echo "+text+" >/g\n"), "build", "-t", "built", "-")
	}
	if r := cli.TryInput(t, strings.NewReader("FROM busybox\nRUN false\n"), "build", "-"); r.Code == 0 {
		t.Error("a failing step succeeded")
	}
	cli.OK(t, "rmi", "built")
	cli.OK(t, "image", "prune", "-f")
	cli.OK(t, "builder", "prune", "-af")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		path []string
	}{
		{"buildkit/cache.db", []string{"_result"}},
		{"buildkit/cache.db", []string{"_byresult"}},
		{"buildkit/cache.db", []string{"_links"}},
		{"buildkit/metadata_v2.db", []string{"_main"}},
		{"buildkit/history.db", []string{"_records"}},
		{"metadata.db", []string{"v1", "wherry", "leases"}},
		{"metadata.db", []string{"v1", "wherry_history", "leases"}},
		{"metadata.db", []string{"v1", "wherry_history", "content", "blob"}},
	} {
		if keys := keysOf(t, filepath.Join(d.DataRoot, tt.file), tt.path...); len(keys) > 0 {
			t.Errorf("%s, %v: %d left: %.300q", tt.file, tt.path, len(keys), keys)
		}
	}
	for _, dir := range []string{snapshots, blobs} {
		if left := entries(dir); !slices.Equal(left, before[dir]) {
			t.Errorf("%s has %v, and had %v", dir, left, before[dir])
		}
	}
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
}

// keysOf lists the keys in a bucket of a database.
func keysOf(t *testing.T, file string, path ...string) (keys []string) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(path[0]))
		for _, name := range path[1:] {
			if b != nil {
				b = b.Bucket([]byte(name))
			}
		}
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			keys = append(keys, string(k))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestBuildRemoteRefused asks for a context that is a file of the daemon's machine.
func TestBuildRemoteRefused(t *testing.T) {
	t.Parallel()
	shared(t).API(t, 400, "POST", "/build?remote=file:///etc/passwd", "")
}
