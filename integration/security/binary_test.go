package security

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestRuntimeBinary tries to get at the program that starts containers
// (CVE-2019-5736): what a container can open of it is a copy in memory, or a file
// of a read-only file system, that nobody can change.
func TestRuntimeBinary(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	image(t, d, "selfexe", `{"Entrypoint":["/evil"]}`,
		file{name: "evil", body: "#!/proc/self/exe\n"},
		file{name: "bin/loop", link: "/proc/self/exe"},
	)
	program := testenv.Bin(t, "wherry-runtime")
	before := sum(t, program)
	attempts := map[string]func(t *testing.T, id string){
		"CVE-2019-5736 exec": func(t *testing.T, id string) {
			for range 15 {
				cli.Try(t, "exec", id, "/evil")
				cli.Try(t, "exec", id, "/bin/loop")
			}
		},
		"CVE-2019-5736 exec with terminal": func(t *testing.T, id string) {
			for range 5 {
				cli.Try(t, "exec", "-t", id, "/evil")
			}
		},
		"CVE-2019-5736 init": func(t *testing.T, id string) {
			for range 5 {
				cli.Try(t, "run", "--rm", "--pid", "container:"+id, "selfexe")
				cli.Try(t, "run", "--rm", "--init", "--pid", "container:"+id, "selfexe", "x")
			}
		},
	}
	for label, attempt := range attempts {
		t.Run(label, func(t *testing.T) {
			id := background(t, cli, "--entrypoint", "/probe", "selfexe", "exes", "2")
			attempt(t, id)
			cli.OK(t, "wait", id)
			out := cli.OK(t, "logs", id)
			t.Log(out)
			for _, line := range lines(out, "program") {
				if strings.Contains(line, `"/wherry-runtime"`) { // a reaper
					contains(t, "read-only", line, "read-only file system")
				} else {
					contains(t, "a copy in memory", line, `"/memfd:wherry-runtime (deleted)"`)
					if !regexp.MustCompile(`seals 0x[0-9a-f]?f `).MatchString(line) { // SEAL, SHRINK, GROW, WRITE
						t.Errorf("not sealed: %s", line)
					}
				}
				contains(t, "unwritten", line, "written 0 ")
				lacks(t, "unwritten", line, "<nil>")
			}
			if label != "CVE-2019-5736 exec with terminal" && len(lines(out, "program")) == 0 {
				t.Error("the attacker never saw the program: the test shows nothing")
			}
		})
	}
	if after := sum(t, program); after != before {
		t.Error("wherry-runtime was changed on disk")
	}
	// Without a byte of it changed, it is of no use if nobody may execute it.
	for range 2 {
		contains(t, "the reaper's mode", cli.OK(t, "run", "--rm", "--init", "probe", "/bin/sh", "-c", "chmod 0 /proc/1/exe || echo refused"), "refused")
	}
	contains(t, "a container afterwards", cli.OK(t, "run", "--rm", "probe", "/bin/echo", "fine"), "fine")
}

func sum(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// ordinary are descriptors that a process of a container has: its streams.
var ordinary = regexp.MustCompile(`^fd \d+ [012] (pipe:\[\d+\]|socket:\[\d+\]|/dev/null|/dev/pts/\d+|/dev/console)$`)

// poller tells of the descriptors that the probe's own runtime makes.
func poller(line string) bool {
	return strings.HasSuffix(line, "anon_inode:[eventpoll]") || strings.HasSuffix(line, "anon_inode:[eventfd]")
}

// TestLeakedDescriptors looks for descriptors of the engine in containers
// (CVE-2024-21626, CVE-2016-9962) and for ways to the host through them.
func TestLeakedDescriptors(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	for label, args := range map[string][]string{
		"run":             {"run", "--rm", "probe", "/probe", "fds"},
		"run -t":          {"run", "--rm", "-t", "probe", "/probe", "fds"},
		"run -i":          {"run", "--rm", "-i", "probe", "/probe", "fds"},
		"run --init":      {"run", "--rm", "--init", "probe", "/probe", "fds"},
		"run -t --init":   {"run", "--rm", "-t", "--init", "probe", "/probe", "fds"},
		"run -u":          {"run", "--rm", "-u", "1000", "probe", "/probe", "fds"},
		"run privileged":  {"run", "--rm", "--privileged", "probe", "/probe", "fds"},
		"run in its pids": {"run", "--rm", "--pid", "container:" + id, "probe", "/probe", "fds"},
		"exec":            {"exec", id, "/probe", "fds"},
		"exec -t":         {"exec", "-t", id, "/probe", "fds"},
		"exec -i":         {"exec", "-i", id, "/probe", "fds"},
		"exec privileged": {"exec", "--privileged", id, "/probe", "fds"},
	} {
		t.Run(label, func(t *testing.T) {
			ownDescriptors(t, cli.OK(t, args...))
		})
	}
	t.Run("CVE-2024-21626 working directory", func(t *testing.T) { workingDirectories(t, d, id) })
}

// ownDescriptors checks what the probe has found.
func ownDescriptors(t *testing.T, out string) {
	t.Helper()
	out = strings.ReplaceAll(out, "\r", "")
	found := lines(out, "fd")
	if len(found) < 3 {
		t.Fatalf("no descriptors were found at all: %q", out)
	}
	for _, line := range found {
		if !ordinary.MatchString(line) && !poller(line) {
			t.Errorf("not the container's own: %s", line)
		}
	}
	for _, word := range []string{"cwd", "root"} {
		for _, line := range lines(out, word) {
			if !strings.HasSuffix(line, " /") {
				t.Errorf("outside: %s", line)
			}
		}
	}
}

// workingDirectories uses descriptors that init may have open as the working
// directory: of a container, of an exec, and through links.
func workingDirectories(t *testing.T, d *testenv.Daemon, id string) {
	cli := d.Wherry(t)
	var files []file
	for n := 3; n < 20; n++ {
		files = append(files, file{name: fmt.Sprintf("fd%d", n), link: fmt.Sprintf("/proc/self/fd/%d", n)})
	}
	image(t, d, "cwd", `{}`, files...)
	holder := cli.OK(t, "run", "-d", "cwd", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", holder) })
	canary := newCanary(t)
	up := strings.Repeat("../", 12) + strings.TrimPrefix(canary.dir, "/")
	for n := 3; n < 20; n++ {
		for _, dir := range []string{fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/fd%d", n), fmt.Sprintf("/proc/thread-self/fd/%d/", n), fmt.Sprintf("/proc/1/fd/%d", n)} {
			for _, args := range [][]string{
				{"run", "--rm", "-w", dir, "cwd", "/bin/cat", up + "/secret", "/proc/self/mountinfo"},
				{"exec", "-w", dir, holder, "/bin/cat", up + "/secret"},
			} {
				if args[0] == "exec" && n > 12 {
					continue
				}
				r := cli.Try(t, args...)
				canary.notIn(t, strings.Join(args, " "), r.All())
				if r.Code == 0 && args[0] == "exec" {
					t.Errorf("%v succeeded: %s", args, r.All())
				}
				lacks(t, strings.Join(args, " "), r.All(), " / / ") // the host's root as a mount
			}
		}
	}
	// The same from an image.
	image(t, d, "cwd2", `{"WorkingDir":"/proc/self/fd/7"}`)
	r := cli.Try(t, "run", "--rm", "cwd2", "/bin/cat", up+"/secret")
	canary.notIn(t, "WORKDIR of an image", r.All())
	_ = id
}

// TestForeignCode makes root file systems full of traps and has the engine do
// what made others load or run something of them (CVE-2019-14271 nsswitch
// in docker cp, CVE-2026-41567 xz of the container): on the host's side
// nothing of a root file system is ever executed or loaded.
func TestForeignCode(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	canary := newCanary(t)
	program, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	trap := string(attacker) + "\nTRAP:" + canary.dir + "/trapped\n"
	var files []file
	for i, name := range []string{
		"bin/tar", "bin/xz", "bin/gzip", "bin/unpigz", "bin/pigz", "bin/zstd", "bin/bzip2", "usr/bin/xz", "usr/bin/unpigz", "usr/bin/gzip", "usr/bin/tar",
		"bin/ps", "bin/ls", "sbin/iptables", "usr/sbin/nft", "sbin/modprobe", "bin/mount", "usr/bin/newuidmap", "usr/bin/git", "proc-helper", "sbin/init", "dev/init",
		"usr/local/sbin/runc", "usr/bin/wherry-runtime", "usr/bin/docker-init",
	} {
		if i == 0 {
			files = append(files, file{name: "trap", body: trap})
		}
		files = append(files, file{name: name, typ: '1', link: "trap"})
	}
	elf := "\x7fELF" + strings.Repeat("\x00", 60)
	for _, name := range []string{
		"lib/x86_64-linux-gnu/libnss_files.so.2", "lib64/libnss_files.so.2", "lib/libnss_evil.so.2", "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6",
	} {
		files = append(files, file{name: name, body: elf})
	}
	files = append(files,
		file{name: "etc/nsswitch.conf", body: "passwd: evil\ngroup: evil\nhosts: evil\n"},
		file{name: "etc/ld.so.preload", body: "/lib/libnss_evil.so.2\n"},
		file{name: "etc/magic", body: "trap"},
		file{name: "etc/passwd", body: "app:x:1000:1000::/:/bin/sh\n"},
	)
	image(t, d, "traps", `{"User":"app"}`, files...)
	id := cli.OK(t, "run", "-d", "-u", "0", "traps", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"cp", filepath.Join(dir, "f"), id + ":/tmp/"}, {"cp", "-a", filepath.Join(dir, "f"), id + ":/tmp/g"},
		{"cp", id + ":/bin", filepath.Join(dir, "out")}, {"top", id}, {"diff", id}, {"commit", id, "trapped"},
		{"export", "-o", filepath.Join(dir, "e.tar"), id}, {"stats", "--no-stream", id}, {"exec", id, "/bin/busybox", "true"},
		{"exec", "-u", "app", id, "/bin/busybox", "true"}, {"save", "-o", filepath.Join(dir, "s.tar"), "trapped"},
	} {
		cli.OK(t, args...)
	}
	// Archives in every compression, also those not known; a container's own
	// programs are no help.
	for name, head := range map[string]string{
		"gzip": "\x1f\x8b\x08", "xz": "\xfd7zXZ\x00", "bzip2": "BZh9", "zstd": "\x28\xb5\x2f\xfd", "lz4": "\x04\x22\x4d\x18", "compress": "\x1f\x9d",
	} {
		if status, body := putArchive(t, d, id, "/tmp", []byte(head+strings.Repeat("\x00", 100))); status == 200 && name != "lz4" && name != "compress" {
			t.Errorf("%s: a broken archive was taken: %s", name, body)
		}
	}
}
