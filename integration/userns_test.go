package integration

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// remapped starts a daemon whose containers have user namespaces, with the image
// busybox, and returns the first id of its ranges.
func remapped(t *testing.T) (d *testenv.Daemon, image string, first int) {
	t.Helper()
	remap, first := testenv.SubordinateIDs(t)
	d = testenv.Start(t, testenv.Options{Config: map[string]any{"userns-remap": remap}})
	return d, d.Image(t, "busybox"), first
}

// uidMap is /proc/self/uid_map with single spaces.
func uidMap(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestUserNamespaces does what users do with containers, in user namespaces.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	d, image, first := remapped(t)
	want := fmt.Sprintf("0 %d 65536", first)
	contains(t, "info", d.Wherry(t).OK(t, "info", "-f", "{{.SecurityOptions}}"), "name=userns")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		run := func(args ...string) string { t.Helper(); return cli.OK(t, append([]string{"run", "--rm"}, args...)...) }
		equal(t, "uid_map", uidMap(run(image, "cat", "/proc/self/uid_map")), want)
		equal(t, "owners", run(image, "stat", "-c", "%u:%g", "/", "/bin", "/etc/hosts", "/etc/resolv.conf", "/dev/shm", "/dev/pts"), strings.TrimSpace(strings.Repeat("0:0\n", 6)))
		equal(t, "in the host's", uidMap(run("--userns", "host", image, "cat", "/proc/self/uid_map")), "0 0 4294967295")
		equal(t, "streams", run("-u", "1000:1000", image, "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; id -u"), "out\n1000")
		equal(t, "terminal", strings.TrimSpace(run("-t", image, "sh", "-c", "test -t 0 && stat -c %u /dev/pts/0")), "0")
		equal(t, "kernel file systems", run(image, "sh", "-c", "ls /sys/class/net; test -w /dev/mqueue && grep -c cgroup /proc/mounts > /dev/null && echo mounted"), "eth0\nlo\nmounted")
		equal(t, "network", run("--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.ip_forward=1", image, "sh", "-c", "ip addr add 10.9.8.7/32 dev lo && cat /proc/sys/net/ipv4/ip_forward"), "1")
		equal(t, "tmpfs and anonymous volume", run("--tmpfs", "/t", "-v", "/v", image, "sh", "-c", "touch /t/a /v/a; chown 1000:1000 /v/a; stat -c %u:%g /t /t/a /v /v/a"), "0:0\n0:0\n0:0\n1000:1000")
		equal(t, "init", run("--init", "--read-only", "-w", "/new/dir", image, "pwd"), "/new/dir")

		c, vol := name(t), name(t)
		detached(t, cli, "--name", c, "-v", vol+":/vol", "--health-cmd", "test -e /root", "--health-interval", "1s", "-p", "127.0.0.1::80", image, "sh", "-c", "mkdir /made; touch /made/a /vol/a; chown 1000 /made/a; "+answer)
		testenv.Eventually(t, "it answers", func() bool { return cli.Try(t, "exec", c, "test", "-e", "/vol/a").Code == 0 })
		equal(t, "exec", uidMap(cli.OK(t, "exec", c, "cat", "/proc/self/uid_map")), want)
		equal(t, "exec as a user", cli.OK(t, "exec", "-u", "1000", c, "sh", "-c", "echo $(id -u) > /dev/stdout"), "1000")
		contains(t, "port", say(t, "tcp", "127.0.0.1:"+port(t, cli, c, "80/tcp", "4")), cli.OK(t, "inspect", "-f", "{{.Config.Hostname}}", c))
		contains(t, "top", cli.OK(t, "top", c), fmt.Sprint(first))
		equal(t, "inspect", cli.OK(t, "inspect", "-f", "[{{.HostConfig.UsernsMode}}]", c), "[]")
		testenv.Eventually(t, "it is healthy", func() bool { return cli.OK(t, "inspect", "-f", "{{.State.Health.Status}}", c) == "healthy" })

		var out []string
		for r := tar.NewReader(strings.NewReader(cli.Try(t, "cp", c+":/made", "-").Stdout)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			out = append(out, fmt.Sprint(h.Name, h.Uid, h.Gid))
		}
		equal(t, "copied out", strings.Join(out, " "), "made/0 0 made/a1000 0")
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "made"), 0o755), os.WriteFile(filepath.Join(dir, "made/a"), nil, 0o600), os.Chown(filepath.Join(dir, "made/a"), 1000, 1000)); err != nil {
			t.Fatal(err)
		}
		cli.OK(t, "cp", "-a", filepath.Join(dir, "made"), c+":/in")
		cli.OK(t, "cp", "-a", filepath.Join(dir, "made"), c+":/vol/in")
		equal(t, "copied in", cli.OK(t, "exec", c, "stat", "-c", "%u", "/in", "/in/a", "/vol/in", "/vol/in/a"), "0\n1000\n0\n1000")
		contains(t, "diff", cli.OK(t, "diff", c), "A /in/a")
		committed := name(t)
		cli.OK(t, "commit", c, committed)
		t.Cleanup(func() { cli.Try(t, "rmi", "-f", committed) })
		for _, mode := range []string{"", "host"} {
			equal(t, "committed", run("--userns="+mode, "-v", vol+":/vol", committed, "stat", "-c", "%u", "/in", "/in/a", "/vol/in/a"), "0\n1000\n1000")
		}
		cli.OK(t, "stop", "-t", "0", c)
		cli.OK(t, "cp", "-a", filepath.Join(dir, "made/a"), c+":/later")
		cli.OK(t, "start", c)
		equal(t, "copied in while it was stopped", cli.OK(t, "exec", c, "stat", "-c", "%u", "/later"), "1000")
	})
}

// TestUserNamespaceModes: which namespaces of others a container can have besides
// its own user namespace, and which are refused.
func TestUserNamespaceModes(t *testing.T) {
	t.Parallel()
	d, image, _ := remapped(t)
	cli := d.Docker(t)
	mine, other, host := name(t), name(t), name(t)
	detached(t, cli, "--name", mine, "--ipc", "shareable", image, "sh", "-c", "touch /dev/shm/mine; exec sleep 1000")
	detached(t, cli, "--name", other, image, "sleep", "1000")
	detached(t, cli, "--name", host, "--userns", "host", "--ipc", "shareable", image, "sleep", "1000")
	ns := func(kind string) string {
		t.Helper()
		return cli.OK(t, "exec", mine, "readlink", "/proc/self/ns/"+kind)
	}
	for _, kind := range []string{"network", "pid", "ipc"} {
		link := strings.TrimSuffix(kind, "work")
		flag := "--" + kind + "=container:"
		if kind == "network" {
			link = "net"
		}
		equal(t, kind, cli.OK(t, "run", "--rm", flag+mine, image, "sh", "-c", "readlink /proc/self/ns/"+link+"; readlink /proc/self/ns/user"), ns(link)+"\n"+ns("user"))
		equal(t, kind+", from the host's", cli.OK(t, "run", "--rm", "--userns=host", flag+mine, image, "readlink", "/proc/self/ns/"+link), ns(link))
		cli.Fails(t, 125, "it is in the user namespace of the host", "run", "--rm", flag+host, image, "true")
	}
	equal(t, "all of them", cli.OK(t, "run", "--rm", "--network=container:"+mine, "--pid=container:"+mine, "--ipc=container:"+mine, image, "sh", "-c", "ls /dev/shm; stat -c %u /dev/shm/mine; ls /sys/class/net"), "mine\n0\neth0\nlo")
	cli.Fails(t, 125, "has another user namespace", "run", "--rm", "--network=container:"+mine, "--pid=container:"+other, image, "true")
	for flag, want := range map[string]string{
		"--privileged":   "privileged mode is incompatible with user namespaces",
		"--network=host": "cannot share the host's network namespace when user namespaces are enabled",
		"--pid=host":     "cannot share the host PID namespace when user namespaces are enabled",
		"--ipc=host":     "cannot share the host's IPC namespace when user namespaces are enabled",
	} {
		cli.Fails(t, 125, want, "run", "--rm", flag, image, "true")
		cli.OK(t, "run", "--rm", "--userns=host", flag, image, "true")
	}
	for _, flag := range []string{"--uts=host", "--cgroupns=host", "--cgroupns=private", "--network=none"} {
		cli.OK(t, "run", "--rm", flag, image, "true")
	}
}

// TestUserNamespaceLives: what keeps a container in its user namespace, and what
// moves it to another one, with its files.
func TestUserNamespaceLives(t *testing.T) {
	t.Parallel()
	d, image, first := remapped(t)
	cli := d.Docker(t)
	c := "c-" + name(t)
	cli.OK(t, "run", "-d", "--name", c, "--restart", "always", "-v", "/vol", image, "sh", "-c", "test -e /mine || { touch /mine /vol/mine; chown 1000 /mine; }; exec sleep 1000")
	want := fmt.Sprintf("0 %d 65536\n1000\n0", first)
	state := func() string {
		r := cli.Try(t, "exec", c, "sh", "-c", "echo $(cat /proc/self/uid_map); stat -c %u /mine /vol/mine")
		return strings.TrimSpace(r.Stdout)
	}
	testenv.Eventually(t, "it is up", func() bool { return state() == want })
	ns := cli.OK(t, "exec", c, "readlink", "/proc/self/ns/user")
	pid := func() string { return cli.OK(t, "inspect", "-f", "{{.State.Pid}}", c) }
	again := func(what string) {
		t.Helper()
		testenv.Eventually(t, what, func() bool { return state() == want })
		equal(t, what+": user namespace", cli.OK(t, "exec", c, "readlink", "/proc/self/ns/user"), ns)
		cli.OK(t, "cp", "-a", c+":/mine", filepath.Join(t.TempDir(), "mine"))
	}
	killed := func(pid int) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	again("the daemon was killed")
	killed(d.Helper("supervisor"))
	again("the supervisor was killed")
	var n int
	if _, err := fmt.Sscan(pid(), &n); err != nil {
		t.Fatal(err)
	}
	killed(n)
	testenv.Eventually(t, "another life", func() bool { p := pid(); return p != "0" && p != fmt.Sprint(n) })
	again("it was killed")

	configure := func(remap any) {
		t.Helper()
		config := map[string]any{}
		if remap != nil {
			config["userns-remap"] = remap
		}
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteConfig(config); err != nil {
			t.Fatal(err)
		}
		if err := d.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	configure(nil)
	again("the option was taken away")
	cli.OK(t, "restart", "-t", "0", c)
	equal(t, "in the host's user namespace", state(), "0 0 4294967295\n1000\n0")
	remap, moved := testenv.SubordinateIDs(t)
	configure(remap)
	equal(t, "until it starts again", state(), "0 0 4294967295\n1000\n0")
	cli.OK(t, "restart", "-t", "0", c)
	equal(t, "with other ids", state(), fmt.Sprintf("0 %d 65536\n1000\n0", moved))

	// A reload does not change it.
	if err := d.WriteConfig(nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the warning", func() bool {
		return strings.Contains(d.LogTail(), `changes that need a restart were not applied" options=userns-remap`)
	})
	contains(t, "after a reload", cli.OK(t, "info", "-f", "{{.SecurityOptions}}"), "name=userns")
}

// TestUserNamespaceOfNobody: a daemon that finds no ranges says what to write where.
func TestUserNamespaceOfNobody(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	d, err := testenv.New(testenv.Options{Config: map[string]any{"userns-remap": "2099999999"}})
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(d.Dir)
	defer os.RemoveAll(d.ExecRoot)
	if err := d.Launch(); err == nil {
		t.Error("it started")
		_ = d.Kill()
	}
	contains(t, "why", d.LogTail(), "/etc/subuid has no range for 2099999999: add a line such as 2099999999:100000:65536")
}
