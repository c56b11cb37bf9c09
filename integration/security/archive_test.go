package security

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestCopyRace copies in and out of containers whose paths are exchanged with
// links to the host all the time (CVE-2018-15664, CVE-2021-41089): in a volume,
// and in the root file system itself.
func TestCopyRace(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	for label, top := range map[string]string{"volume": "/v", "root": "/data"} {
		t.Run(label, func(t *testing.T) {
			canary := newCanary(t)
			id := background(t, cli, "-v", "/v", "probe", "/bin/sh", "-ec",
				fmt.Sprintf("cd %[1]s; mkdir -p x/dir x/sub; echo mine >x/secret; echo mine >x/dir/secret; ln -s %[2]s l; ln -s ../../../../../../..%[2]s m; mkdir y; echo mine >y/secret; exec /probe swap %[1]s/x %[1]s/l %[1]s/y %[1]s/m", top, canary.dir))
			for range 40 {
				for _, p := range []string{"/x/secret", "/x/dir", "/y/secret", "/x/.", "/x", "/l/secret", "/m", ""} {
					_, body := getArchive(t, d, id, top+p)
					canary.notIn(t, "GET "+p, body)
				}
				for _, p := range []string{"/x", "/x/dir", "/y", "/l", ""} {
					putArchive(t, d, id, top+p, pack(t, planted(p == "")...))
				}
				statPath(t, d, id, top+"/x/secret")
			}
			status, body := putArchive(t, d, id, "/tmp", pack(t, planted(false)...))
			if status != 200 {
				t.Errorf("an ordinary copy afterwards: %d %s", status, body)
			}
			dir := t.TempDir()
			for range 5 {
				cli.Try(t, "cp", id+":"+top+"/x", dir)
				cli.Try(t, "cp", filepath.Join(dir, "."), id+":"+top+"/x/dir")
				cli.Try(t, "cp", "-L", id+":"+top+"/x/secret", filepath.Join(dir, "out"))
			}
			out, _ := os.ReadFile(filepath.Join(dir, "out"))
			canary.notIn(t, "cp -L", string(out))
		})
	}
}

// planted is an archive that would change much if it were unpacked elsewhere.
func planted(top bool) []file {
	prefix := ""
	if top {
		prefix = "x/"
	}
	return []file{
		{name: prefix + "secret", body: "planted"}, {name: prefix + "dir/secret", body: "planted", mode: 0o777, uid: 7, gid: 7},
		{name: prefix + "dir/", mode: 0o777, uid: 7}, {name: prefix + "new/deep/", mode: 0o777}, {name: prefix + "hard", typ: tar.TypeLink, link: prefix + "secret"},
		{name: prefix + "sub/", mode: 0o711}, {name: prefix + "sub", link: "nowhere"}, {name: prefix + "fifo", typ: tar.TypeFifo},
		{name: prefix + "dir", body: "in place of a directory"},
	}
}

func statPath(t *testing.T, d *testenv.Daemon, id, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, _, err := d.Request(ctx, "HEAD", "/containers/"+id+"/archive?path="+url.QueryEscape(path), nil); err != nil {
		t.Error(err)
	}
}

// TestArchiveEscape unpacks archives that mean to leave the container, into one
// that runs and one that does not, and as images (CVE-2021-41089, the tar
// escapes of load, import and ADD).
func TestArchiveEscape(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	running := cli.OK(t, "run", "-d", "-v", "/v", "probe", "/probe", "sleep")
	created := cli.OK(t, "create", "-v", "/v", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-fv", running, created) })
	for label, entries := range escapes("@") {
		t.Run(label, func(t *testing.T) {
			canary := newCanary(t)
			files := escapes(canary.dir)[label]
			data := pack(t, files...)
			for _, id := range []string{running, created} {
				for _, p := range []string{"/", "/data", "/v"} {
					status, body := putArchive(t, d, id, p, data)
					t.Logf("PUT %s: %d %s", p, status, strings.TrimSpace(body))
				}
				_, body := getArchive(t, d, id, "/data")
				canary.notIn(t, "the archive", body)
			}
			name := unique("escape")
			r := cli.TryInput(t, bytes.NewReader(data), "import", "-", name)
			t.Logf("import: %d %s", r.Code, r.Stderr)
			r = cli.TryInput(t, bytes.NewReader(archive(t, name+"-load", "{}", files...)), "load")
			t.Logf("load: %d %s", r.Code, r.Stderr)
			r = cli.TryInput(t, bytes.NewReader(pack(t, file{name: "Dockerfile", body: "FROM probe\nADD evil.tar /data/\nRUN /bin/true\n"}, file{name: "evil.tar", body: string(data)})), "build", "-t", name+"-add", "-")
			t.Logf("build: %d", r.Code)
			canary.notIn(t, "output of the build", r.All())
			for _, made := range []string{name, name + "-load", name + "-add"} {
				r = cli.Try(t, "run", "--rm", "--network", "none", made, "/bin/cat", "/data/h", "/h", "/data/l/secret")
				canary.notIn(t, "run "+made, r.All())
				cli.Try(t, "rmi", "-f", made)
			}
		})
		_ = entries
	}
}

// escapes are the archives, aimed at a directory of the host.
func escapes(dir string) map[string][]file {
	up := strings.Repeat("../", 16) + strings.TrimPrefix(dir, "/")
	return map[string][]file{
		"dots":                {{name: up + "/planted", body: "x"}},
		"absolute":            {{name: dir + "/planted", body: "x"}},
		"through a link":      {{name: "l", link: dir}, {name: "l/planted", body: "x"}, {name: "l/secret", body: "x"}},
		"through dots":        {{name: "l", link: up}, {name: "l/planted", body: "x"}},
		"over a link":         {{name: "l", link: dir + "/secret"}, {name: "l", body: "x"}},
		"directory by link":   {{name: "l", link: dir}, {name: "l/", mode: 0o777, uid: 9}, {name: "l/dir/", mode: 0o777}},
		"hard link out":       {{name: "h", typ: tar.TypeLink, link: up + "/secret"}, {name: "h", body: "x", mode: 0o777}},
		"hard link absolute":  {{name: "h", typ: tar.TypeLink, link: dir + "/secret"}},
		"hard link by link":   {{name: "l", link: dir}, {name: "h", typ: tar.TypeLink, link: "l/secret"}},
		"hard link to a link": {{name: "l", link: dir + "/secret"}, {name: "h", typ: tar.TypeLink, link: "l"}, {name: "h", body: "x"}},
		"links of links":      {{name: "a", link: "."}, {name: "a/a/b", link: up}, {name: "a/b/planted", body: "x"}},
		"whiteout":            {{name: "l", link: dir}, {name: "l/.wh.secret", body: ""}, {name: up + "/.wh.secret"}, {name: ".wh..."}, {name: "l/.wh..wh..opq"}},
		"magic link":          {{name: "l", link: "/proc/1/root" + dir}, {name: "l/planted", body: "x"}, {name: "m", link: "/proc/self/cwd"}, {name: "m/planted", body: "x"}},
		"nodes":               {{name: "n", typ: tar.TypeBlock, mode: 0o666}, {name: "c", typ: tar.TypeChar, mode: 0o666}, {name: "f", typ: tar.TypeFifo}, {name: "f", body: "x"}},
		"overlay attributes":  {{name: "data/", pax: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": dir, "SCHILY.xattr.trusted.overlay.opaque": "y"}}, {name: "r", body: "x", pax: map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": "", "SCHILY.xattr.trusted.overlay.redirect": dir + "/secret"}}},
		"long name":           {{name: strings.Repeat("a/", 4000) + "x", body: "x"}},
	}
}

// TestChangesRace takes differences, commits and exports of a container that
// exchanges its directories with links to the host.
func TestChangesRace(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	canary := newCanary(t)
	id := background(t, cli, "probe", "/bin/sh", "-ec",
		fmt.Sprintf("mkdir -p /data/x/dir; echo mine >/data/x/secret; echo mine >/data/x/dir/secret; ln -s %s /data/l; mkdir /data/y; exec /probe swap /data/x /data/l /data/y /data/x /bin/ls /data/y", canary.dir))
	for i := range 8 {
		cli.Try(t, "diff", id)
		name := unique("raced")
		r := cli.Try(t, "commit", "-p=false", id, name)
		if r.Code == 0 {
			saved := cli.Try(t, "save", name)
			canary.notIn(t, "the committed image", saved.Stdout)
		}
		cli.Try(t, "rmi", "-f", name)
		exported := cli.Try(t, "export", id)
		canary.notIn(t, "the export", exported.Stdout)
		if i == 0 && !strings.Contains(exported.Stdout, "mine") {
			t.Error("the export holds nothing")
		}
		cli.Try(t, "ps", "-as")
	}
}

// TestDeepTree copies, compares, commits and removes a tree that is nested
// deeper than any program recurses well: refused or done, but never at the
// expense of others, and nothing of it stays on disk.
func TestDeepTree(t *testing.T) {
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image(t, d, "probe", "")
	cli := d.Wherry(t)
	// Deeper than the daemon may open files, which is made small so that the
	// tree need not be large.
	const depth, files = 5000, 4800
	few := unix.Rlimit{Cur: files, Max: files}
	if err := unix.Prlimit(d.Pid(), unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	id := cli.OK(t, "create", "-v", "/v", "probe", "/bin/sh", "-c", fmt.Sprintf("/probe deep /data/deep %d; /probe deep /v %d", depth, depth))
	t.Cleanup(func() { cli.Try(t, "rm", "-fv", id) })
	volume := cli.OK(t, "inspect", "-f", "{{(index .Mounts 0).Name}}", id)
	contains(t, "the tree", cli.OK(t, "start", "-a", id), fmt.Sprint("nested ", depth))
	other := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", other) })
	busy := make(chan struct{})
	go func() { // others go on meanwhile
		defer close(busy)
		for range 20 {
			if r := cli.Try(t, "exec", other, "/bin/true"); r.Code != 0 {
				t.Errorf("exec elsewhere: %s", r.All())
			}
		}
	}()
	for _, p := range []string{"/data", "/v"} {
		status, body := getArchive(t, d, id, p)
		t.Logf("GET %s: %d, %d bytes", p, status, len(body))
	}
	for _, args := range [][]string{{"diff", id}, {"commit", id, "deep"}, {"ps", "-as"}, {"system", "df"}} {
		r := cli.Try(t, args...)
		t.Logf("%v: %d %.200s", args, r.Code, r.Stderr)
	}
	status, body := putArchive(t, d, id, "/", pack(t, file{name: "data/deep", body: "in its place"}))
	t.Logf("PUT over it: %d %.200s", status, body)
	<-busy
	cli.Try(t, "rmi", "-f", "deep")
	cli.OK(t, "rm", "-fv", id)
	if volume != "" {
		cli.Fails(t, 1, "no such volume", "volume", "inspect", volume)
	}
	testenv.Within(t, time.Minute, "the trees are gone from the disk", func() bool {
		for _, dir := range []string{"layers", "layers/.trash", "volumes"} {
			entries, err := os.ReadDir(filepath.Join(d.DataRoot, dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), id) || strings.HasPrefix(e.Name(), ".removing-") || e.Name() == volume && volume != "" {
					return false
				}
			}
		}
		return true
	})
}

// TestArchiveBudget sends archives without end and of many names.
func TestArchiveBudget(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "create", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	huge := pack(t, file{name: "x", body: "y"})
	// A header that promises more than comes, and a PAX record larger than any name.
	for label, data := range map[string][]byte{
		"truncated":  huge[:700],
		"pax record": pack(t, file{name: strings.Repeat("n", 100<<10), body: "x"}),
		"not a tar":  []byte(strings.Repeat("garbage", 1000)),
		"empty":      nil,
	} {
		status, body := putArchive(t, d, id, "/", append(data, 0))
		t.Logf("%s: %d %s", label, status, body)
		if status >= 500 {
			t.Errorf("%s: %d %s", label, status, body)
		}
	}
	_, out := getArchive(t, d, id, "/x")
	r := tar.NewReader(strings.NewReader(out))
	if _, err := r.Next(); err != nil && !errors.Is(err, io.EOF) {
		t.Logf("what is left: %v", err)
	}
}
