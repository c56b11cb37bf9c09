package security

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestUserStrings gives every kind of user and looks at who the process became
// (CVE-2024-40635: a number that overflows becomes root; CVE-2026-30892: 1
// becomes root).
func TestUserStrings(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	image(t, d, "users", "{}", file{name: "etc/passwd", mode: 0o644, body: strings.Join([]string{
		"root:x:0:0:root:/root:/bin/sh", "app:x:1000:1000::/home/app:/bin/sh", "1001:x:0:0::/:/bin/sh", "4294967297:x:5:5::/:", "over:x:4294967296:4294967296::/:",
		"minus:x:-1:-1::/:", "hex:x:0x0:0x0::/:", "plus:x:+0:+0::/:", "space:x: 0: 0::/:", "empty:x::::/:", "short", ":x:0:0::/:", "app:x:0:0::/second:", "dup:x:7:7::/:", "tail:x:2147483648:1::/:", "big:x:4294967295:4294967295::/:",
	}, "\n")}, file{name: "etc/group", mode: 0o644, body: "root:x:0:app\napp:x:1000:\nstaff:x:50:app,dup\n1002:x:0:\nover:x:4294967296:app\nminus:x:-1:app\n"})
	id := cli.OK(t, "run", "-d", "users", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	for user, want := range map[string]string{ // "uid gid groups"; "" is refused
		"root": "0 0 0", "": "0 0 0", "0": "0 0 0", "app": "1000 1000 1000 0 50", "1000": "1000 1000 1000 0 50", "app:staff": "1000 50 50", "app:0": "1000 0 0",
		"1": "1 0 0", "1:1": "1 1 1", "7": "7 7 7 50", "dup:app": "7 1000 1000",
		// A number means the number, whatever the image calls so.
		"1001": "1001 0 0", "1001:1002": "1001 1002 1002", "app:1002": "1000 1002 1002",
		"2147483647": "2147483647 0 0", "2147483647:2147483647": "2147483647 2147483647 2147483647",
		"2147483648": "", "4294967295": "", "4294967296": "", "4294967297": "", "8589934592": "", "18446744073709551616": "", "99999999999999999999999": "", "-1": "", "-0x1": "",
		"1:4294967296": "", "1:-1": "", "over": "", "minus": "", "hex": "", "plus": "", "space": "", "empty": "", "short": "", "tail": "", "big": "",
		"0x0": "", "+0": "", " 0": "", "0 ": "", "00": "0 0 0", "nobody": "", "root:nogroup": "", "app:over": "", "app:minus": "", "../../etc/passwd": "", "a:b:c": "", "1e3": "", "１": "",
	} {
		for _, args := range [][]string{{"run", "--rm", "--network", "none", "-u", user, "users"}, {"exec", "-u", user, id}} {
			r := cli.Try(t, append(args, "/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G)")...)
			got := strings.TrimSpace(r.Stdout)
			if r.Code != 0 {
				got = ""
			}
			if !sameIDs(got, want) {
				t.Errorf("%s with user %q: %q, want %q: %s", args[0], user, got, want, r.Stderr)
			}
		}
	}
}

// sameIDs compares ids; the order of the further groups does not matter.
func sameIDs(got, want string) bool {
	a, b := strings.Fields(got), strings.Fields(want)
	if len(a) < 2 || len(b) < 2 {
		return len(a) == len(b)
	}
	sortLines(a[2:])
	sortLines(b[2:])
	return strings.Join(a, " ") == strings.Join(b, " ")
}

// TestHostilePasswd starts containers whose user files are traps: endless,
// binary, devices, links to the host, pipes that nobody writes to.
func TestHostilePasswd(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	canary := newCanary(t)
	up := strings.Repeat("../", 16) + strings.TrimPrefix(canary.dir, "/")
	for label, files := range map[string][]file{
		"link to the host":   {{name: "etc/passwd", link: canary.dir + "/passwd"}},
		"link by dots":       {{name: "etc/passwd", link: up + "/passwd"}},
		"magic link":         {{name: "etc/passwd", link: "/proc/1/root" + canary.dir + "/passwd"}, {name: "etc/group", link: "/proc/self/root/" + canary.dir + "/passwd"}},
		"descriptor":         {{name: "etc/passwd", link: "/proc/self/fd/3"}, {name: "etc/group", link: "/proc/self/fd/4"}},
		"etc is a link":      {{name: "etc", link: canary.dir}},
		"pipe":               {{name: "etc/passwd", typ: '6'}, {name: "etc/group", typ: '6'}},
		"device":             {{name: "etc/passwd", typ: '3', mode: 0o666, uid: 0}, {name: "etc/group", typ: '3'}},
		"zero":               {{name: "etc/passwd", link: "/dev/zero"}, {name: "etc/group", link: "/dev/urandom"}},
		"directory":          {{name: "etc/passwd/"}, {name: "etc/group/"}},
		"loop":               {{name: "etc/passwd", link: "passwd"}},
		"one endless line":   {{name: "etc/passwd", body: strings.Repeat("x", 8<<20)}},
		"huge":               {{name: "etc/passwd", body: strings.Repeat("a:x:1:1::/:\n", 3<<20)}},
		"binary":             {{name: "etc/passwd", body: strings.Repeat("\x00\xff:\n:\x00:", 1<<16) + "\nevil:x:4242:0::/\x00/:\n"}},
		"home is a newline":  {{name: "etc/passwd", body: "evil:x:4242:4242::/a\rLD_PRELOAD=/x:\n"}},
		"many groups":        {{name: "etc/group", body: manyGroups()}, {name: "etc/passwd", body: "evil:x:5:5::/:\n"}},
		"kernel memory":      {{name: "etc/passwd", link: "/proc/kcore"}},
		"its own memory":     {{name: "etc/passwd", link: "/proc/self/mem"}, {name: "etc/group", link: "/proc/self/environ"}},
		"blocks when opened": {{name: "etc/passwd", link: "/dev/tty"}, {name: "etc/group", link: "/proc/kmsg"}},
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			name := unique("passwd")
			r := cli.TryInput(t, strings.NewReader(string(archive(t, name, "{}", files...))), "load")
			if r.Code != 0 {
				t.Logf("load: %s", r.Stderr)
				return
			}
			for _, user := range []string{"evil", "evil:evil", "4242"} {
				begin := time.Now()
				r := cli.Try(t, "run", "--rm", "--network", "none", "-m", "64m", "-u", user, name, "/bin/sh", "-c", "id -u; echo $HOME; env")
				canary.notIn(t, "run", r.All())
				if r.Code == 0 && user != "4242" && strings.HasPrefix(r.Stdout, "4242") && strings.Contains(label, "link") {
					t.Errorf("the host's file was read: %s", r.All())
				}
				lacks(t, "environment", r.Stdout, "\nLD_PRELOAD=")
				t.Logf("-u %s: %d in %s %.150s", user, r.Code, time.Since(begin).Round(time.Millisecond), r.Stderr)
			}
			id := cli.Try(t, "create", "-u", "evil", name, "/probe", "sleep")
			if id.Code == 0 {
				file := filepath.Join(t.TempDir(), "f")
				if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
				r := cli.Try(t, "cp", "-a", file, strings.TrimSpace(id.Stdout)+":/tmp/")
				canary.notIn(t, "cp -a", r.All())
				if _, out := getArchive(t, d, strings.TrimSpace(id.Stdout), "/tmp/f"); strings.Contains(label, "link") {
					if h, err := tar.NewReader(strings.NewReader(out)).Next(); err == nil && h.Uid == 4242 {
						t.Errorf("cp -a gave the file to a user of the host's: %d", h.Uid)
					}
				}
				cli.Try(t, "rm", "-f", strings.TrimSpace(id.Stdout))
			}
			cli.Try(t, "rmi", "-f", name)
		})
	}
	contains(t, "the engine afterwards", cli.OK(t, "run", "--rm", "probe", "/bin/echo", "fine"), "fine")
}

func manyGroups() string {
	var b strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&b, "g%d:x:%d:evil\n", i, i+10)
	}
	return b.String()
}

// TestPeek looks from containers into processes that are not theirs: the engine's
// in the host's PID namespace (--pid host), and those being started in a shared
// one, which still have more privileges than they will.
func TestPeek(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	pid := d.Pid()
	helpers := d.Helpers()
	out := cli.OK(t, "run", "--rm", "--pid", "host", "probe", "/probe", "peek")
	for _, p := range append(helpers, pid, 1) {
		lacks(t, "--pid host", out, fmt.Sprintf("open %d ", p))
	}
	if len(helpers) < 3 || !strings.Contains(out, "looked at") {
		t.Errorf("nothing was looked at: %v %s", helpers, out)
	}
	for _, line := range lines(out, "open") {
		t.Logf("another container's, or a kernel thread: %s", line)
	}

	holder := background(t, cli, "probe", "/bin/sh", "-c", "echo ready; while :; do /probe peek | grep -v looked; done")
	for range 15 {
		cli.Try(t, "run", "--rm", "--network", "none", "--pid", "container:"+holder, "probe", "/bin/true")
		cli.Try(t, "exec", holder, "/bin/true")
	}
	for _, line := range lines(cli.OK(t, "logs", holder), "open") {
		// What it executed after it had been opened: still the runtime.
		if strings.Contains(line, "memfd:wherry") {
			t.Errorf("a process that was being started could be looked into: %s", line)
		}
	}
}

// TestAbstractSockets looks for the engine from the host's network namespace
// (CVE-2020-15257: the shim's abstract socket).
func TestAbstractSockets(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	for _, network := range []string{"host", "bridge", "none"} {
		out := cli.OK(t, "run", "--rm", "--network", network, "probe", "/probe", "sockets")
		for _, line := range lines(out, "abstract") {
			if strings.Contains(line, "wherry") || strings.Contains(line, filepath.Base(d.ExecRoot)) || strings.Contains(line, d.Dir) {
				t.Errorf("--network %s: %s", network, line)
			}
		}
		out = cli.OK(t, "run", "--rm", "--network", network, "probe", "/bin/sh", "-c", "ls -la "+d.ExecRoot+" "+d.Socket+" /run/wherry.sock /run/wherry 2>&1; true")
		lacks(t, "the engine's files", out, "srw")
	}
	for _, dir := range []string{d.ExecRoot, d.DataRoot} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o007 != 0 && info.Mode().Perm()&0o006 != 0 {
			t.Errorf("%s is open to others: %s", dir, info.Mode())
		}
	}
	_ = testenv.Arch
}
