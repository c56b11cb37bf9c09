package security

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// common is the daemon that the tests share.
var common = sync.OnceValues(func() (*testenv.Daemon, error) {
	d, err := testenv.New(testenv.Options{})
	if err != nil {
		return nil, err
	}
	return d, d.Launch()
})

var commonUsed atomic.Bool

func TestMain(m *testing.M) {
	code := m.Run()
	if commonUsed.Load() {
		if d, err := common(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		} else if err := d.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: the shared daemon: %v\n", err)
			code = 1
		}
	}
	if dir := probeDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// shared returns the common daemon, which has the image "probe".
func shared(t *testing.T) *testenv.Daemon {
	t.Helper()
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	commonUsed.Store(true)
	d, err := common()
	if err != nil {
		t.Fatalf("the shared daemon: %v\n%s", err, d.LogTail())
	}
	loaded.Lock()
	defer loaded.Unlock()
	if !loaded.of[d] {
		image(t, d, "probe", "")
		loaded.of[d] = true
	}
	return d
}

var loaded = struct {
	sync.Mutex
	of map[*testenv.Daemon]bool
}{of: map[*testenv.Daemon]bool{}}

var probeDir atomic.Pointer[string]

// probe is the built attacker.
var probe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wh-probe-")
	if err != nil {
		return "", err
	}
	probeDir.Store(&dir)
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", dir+"/probe", "./probe").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return dir + "/probe", nil
})

// file is an entry of a hostile archive.
type file struct {
	name, body, link string
	typ              byte // 0 is a regular file, or a directory if the name ends in "/"
	mode             int64
	uid, gid         int
	pax              map[string]string
}

// pack makes a tar archive; names are written as they are.
func pack(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Linkname: f.link, Typeflag: f.typ, Mode: f.mode, Uid: f.uid, Gid: f.gid, Size: int64(len(f.body)), PAXRecords: f.pax}
		switch {
		case f.typ != 0:
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// applets of busybox that the tests use.
const applets = "sh ls cat mkdir ln rm echo sleep id grep pwd touch head test true ps mv chmod mknod mount umount env hostname dd stat readlink cp find sort wc"

// base is the layer that all test images share.
var base = sync.OnceValues(func() ([]file, error) {
	program, err := probe()
	if err != nil {
		return nil, err
	}
	attacker, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, err
	}
	files := []file{
		{name: "bin/"}, {name: "etc/"}, {name: "tmp/", mode: 0o1777}, {name: "root/"}, {name: "data/"},
		{name: "bin/busybox", body: string(busybox)}, {name: "probe", body: string(attacker)},
		{name: "etc/passwd", body: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", mode: 0o644},
		{name: "etc/group", body: "root:x:0:\napp:x:1000:\n", mode: 0o644},
	}
	for a := range strings.FieldsSeq(applets) {
		files = append(files, file{name: "bin/" + a, link: "busybox"})
	}
	return files, nil
})

// archive is an image as `docker save` writes it, with the base layer and one
// of the files. config is the value of "config", "" for an empty one.
func archive(t testing.TB, name, config string, files ...file) []byte {
	t.Helper()
	testenv.NeedsProgram(t, "busybox")
	bottom, err := base()
	if err != nil {
		t.Fatal(err)
	}
	layers := [][]byte{pack(t, bottom...)}
	if len(files) > 0 {
		layers = append(layers, pack(t, files...))
	}
	if config == "" {
		config = "{}"
	}
	var ids, names []string
	var entries []file
	for i, l := range layers {
		sum := sha256.Sum256(l)
		ids = append(ids, "sha256:"+hex.EncodeToString(sum[:]))
		names = append(names, fmt.Sprintf("layer%d.tar", i))
		entries = append(entries, file{name: names[i], body: string(l)})
	}
	diffs, _ := json.Marshal(ids)
	doc := fmt.Sprintf(`{"architecture":%q,"os":"linux","created":"2020-01-01T00:00:00Z","config":%s,"rootfs":{"type":"layers","diff_ids":%s}}`, runtime.GOARCH, config, diffs)
	manifest, _ := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name + ":latest"}, "Layers": names}})
	return pack(t, append(entries, file{name: "config.json", body: doc}, file{name: "manifest.json", body: string(manifest)})...)
}

// image loads a test image.
func image(t testing.TB, d *testenv.Daemon, name, config string, files ...file) {
	t.Helper()
	d.Wherry(t).OKInput(t, bytes.NewReader(archive(t, name, config, files...)), "load")
}

var counter atomic.Int64

// unique makes a name that no other test uses.
func unique(prefix string) string { return fmt.Sprintf("%s-%d", prefix, counter.Add(1)) }

// background starts a container that is removed at the end of the test, and
// waits until it says that it is ready.
func background(t testing.TB, cli testenv.CLI, args ...string) string {
	t.Helper()
	id := cli.OK(t, append([]string{"run", "-d"}, args...)...)
	t.Cleanup(func() { cli.Try(t, "rm", "-fv", id) })
	testenv.Eventually(t, "the container is ready", func() bool {
		r := cli.Try(t, "logs", id)
		if strings.Contains(r.All(), "error ") {
			t.Fatalf("the attacker failed: %s", r.All())
		}
		return strings.Contains(r.All(), "ready")
	})
	return id
}

// canary is a directory of the host that no attack may reach.
type canary struct {
	dir    string
	secret string // what is in its files and nowhere else
	before string
}

// newCanary makes one, with further files; at the end of the test it must be as it was.
func newCanary(t *testing.T, more ...string) *canary {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wh-canary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &canary{dir: dir, secret: "canary-" + filepath.Base(dir)}
	names := []string{"secret", "dir/secret", "hosts", "hostname", "resolv.conf", "console", "null", "sub/secret", "file"}
	for _, name := range append(names, more...) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(c.secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passwd := "root:x:0:0:" + c.secret + ":/" + c.secret + ":/bin/sh\nevil:x:4242:4242::/:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd), 0o600); err != nil {
		t.Fatal(err)
	}
	c.before = c.state(t)
	t.Cleanup(func() {
		if now := c.state(t); now != c.before {
			t.Errorf("the canary was touched:\n%s\nit was:\n%s", now, c.before)
		}
	})
	return c
}

// state describes everything in it but access times.
func (c *canary) state(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("find", c.dir, "-printf", "%P %y %m %U:%G %n %s %T@ %C@ %l\\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.dir) {
			lines = append(lines, "mount "+line)
		}
	}
	for i, line := range lines {
		if name, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(rest, "f ") {
			data, _ := os.ReadFile(filepath.Join(c.dir, name))
			lines[i] += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
	}
	sortLines(lines)
	return strings.Join(lines, "\n")
}

// notIn fails the test if something of the canary is in the text.
func (c *canary) notIn(t *testing.T, what, text string) {
	t.Helper()
	if i := strings.Index(text, c.secret); i >= 0 {
		t.Errorf("%s: the canary's secret got out: …%s…", what, text[max(0, i-100):min(len(text), i+100)])
	}
}
