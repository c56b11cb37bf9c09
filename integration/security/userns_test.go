package security

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// userNamespaces starts a daemon whose containers have user namespaces.
func userNamespaces(t *testing.T) (d *testenv.Daemon, first int) {
	t.Helper()
	remap, first := testenv.SubordinateIDs(t)
	d = testenv.Start(t, testenv.Options{Config: map[string]any{"userns-remap": remap}})
	image(t, d, "probe", "")
	return d, first
}

// TestRootOfUserNamespace: root of a container with a user namespace is nobody on
// the host, whatever capabilities it was given.
func TestRootOfUserNamespace(t *testing.T) {
	d, first := userNamespaces(t)
	cli := d.Wherry(t)
	c := newCanary(t)
	if err := os.Chmod(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.before = c.state(t)
	for label, caps := range map[string][]string{"default": nil, "all capabilities": {"--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"}} {
		t.Run(label, func(t *testing.T) {
			id := cli.OK(t, append(append([]string{"run", "-d", "-v", c.dir + ":/host"}, caps...), "probe", "/probe", "sleep")...)
			t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
			pid := cli.OK(t, "inspect", "-f", "{{.State.Pid}}", id)
			status, err := os.ReadFile("/proc/" + pid + "/status")
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"Uid", "Gid"} {
				contains(t, "who it is on the host", string(status), fmt.Sprintf("%s:\t%[2]d\t%[2]d\t%[2]d\t%[2]d\n", kind, first))
			}
			// Each line is an attempt; one that succeeds says so.
			attempts := []string{
				"cat /host/secret", "echo x > /host/secret", "echo x >> /host/file", "touch /host/new", "rm -f /host/secret", "mv /host/dir /host/moved", "chmod 777 /host/secret", "chmod 777 /host",
				"ln /host/secret /host/linked", "mount -o remount,bind,rw /proc/sys && echo x > /proc/sys/kernel/core_pattern", "echo x > /proc/sys/kernel/core_pattern",
				"echo x > /proc/sys/kernel/modprobe", "echo 0 > /proc/sys/kernel/randomize_va_space", "echo 3 > /proc/sys/vm/drop_caches", "echo b > /proc/sysrq-trigger", "echo -900 > /proc/1/oom_score_adj",
				"mount -o remount,bind,rw /sys && echo x > /sys/kernel/uevent_helper", "echo x > /sys/kernel/uevent_helper", "echo mem > /sys/power/state",
				"mknod /dev/disk b 254 0", "mknod /tmp/mem c 1 1", "cat /dev/mem", "cat /proc/kcore", "dd if=/proc/1/root/host/secret of=/tmp/x",
				"mount -t cgroup -o none,name=mine cgroup /tmp && echo x > /tmp/release_agent", "for g in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $g; echo x > $g/release_agent && exit 0; done; exit 1",
				"for g in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $g; mkdir $g/mine && exit 0; done; exit 1",
			}
			for _, a := range attempts {
				if r := cli.Try(t, "exec", id, "sh", "-c", "("+a+") 2>/dev/null && echo done"); strings.Contains(r.Stdout, "done") {
					t.Errorf("%s: %s", a, r.All())
				} else {
					c.notIn(t, a, r.All())
				}
			}
			// What leads out of it is not seen in the descriptors of an exec, either.
			for _, how := range [][]string{{"exec", id}, {"exec", "-t", id}, append([]string{"run", "--rm"}, append(caps, "probe")...)} {
				ownDescriptors(t, cli.OK(t, append(how, "/probe", "fds")...))
			}
		})
	}
}

// TestFilesOfUserNamespace: what root of a container makes belongs to root on the
// disk, where nobody but root may go: a program that is made set-user-ID there is of
// no use to others. So do volumes.
func TestFilesOfUserNamespace(t *testing.T) {
	d, _ := userNamespaces(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "-v", "vol:/vol", "probe", "sh", "-c", "cp /bin/busybox /setuid; cp /bin/busybox /vol/setuid; chmod 4755 /setuid /vol/setuid; echo ready; sleep 1000")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	testenv.Eventually(t, "the files are made", func() bool { return strings.Contains(cli.Try(t, "logs", id).Stdout, "ready") })
	for _, path := range []string{filepath.Join(d.DataRoot, "layers", id, "upper/setuid"), filepath.Join(d.DataRoot, "volumes/vol/_data/setuid")} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != 0 || fi.Mode()&os.ModeSetuid == 0 {
			t.Errorf("%s belongs to %d, with mode %s", path, st.Uid, fi.Mode())
		}
		// The directory of the test itself is closed to others; what counts is the data root.
		if err := os.Chmod(d.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Run(); err == nil {
			t.Errorf("%s can be executed by others", path)
		}
	}
}
