package ocirun

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunTrue(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	res := mustRun(t, r, sh(root, "echo hello; hostname; id; exit 7"))
	if res.code != 7 || res.out != "hello\nbox\nuid=0(root) gid=0(root)\n" {
		t.Fatalf("got %+v", res)
	}
}

// TestOutput runs one script after the other, each with a change of the request.
func TestOutput(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	share := t.TempDir()
	if err := os.WriteFile(filepath.Join(share, "file"), []byte("shared\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ulimit := specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}
	adj := 500
	umask := uint32(0o077)
	mount := func(m specs.Mount) func(*CreateRequest) {
		return func(q *CreateRequest) { q.Spec.Mounts = append(q.Spec.Mounts, m) }
	}
	for _, tt := range []struct {
		name   string
		change func(*CreateRequest)
		script string
		want   string
	}{
		{"pid is 1", nil, "echo $$; echo /proc/[0-9]*", "1\n/proc/1\n"},
		{"descriptors", nil, "ls /proc/self/fd", "0\n1\n2\n3\n"},
		{"null stdin", nil, "readlink /proc/self/fd/0; cat", "/dev/null\n"},
		{"devices", nil, "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' /dev/$d; done",
			"/dev/null character special file 1:3 666\n/dev/zero character special file 1:5 666\n/dev/full character special file 1:7 666\n" +
				"/dev/random character special file 1:8 666\n/dev/urandom character special file 1:9 666\n/dev/tty character special file 5:0 666\n"},
		{"device links", nil, "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done",
			"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n"},
		{"devices work", nil, "head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo y 2>/dev/null > /dev/full && echo no", "4\n"},
		{"devices are restricted", nil, "mknod /tmp/d b 254 0 && (cat /tmp/d 2>&1 | grep -o 'not permitted')", "not permitted\n"},
		{"masked", nil, "wc -c < /proc/interrupts; ls /proc/acpi 2>/dev/null; ls /sys/firmware; touch /sys/firmware/x 2>&1 | grep -o Read-only", "0\nRead-only\n"},
		{"read-only paths", nil, "echo 1 > /proc/sys/kernel/domainname", ""},
		{"proc is not the host's", nil, "cat /proc/1/comm; echo", "sh\n\n"},
		{"capabilities", nil, "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status",
			"CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n"},
		{"capabilities of a user", func(q *CreateRequest) { q.ResolveUser, q.User = true, "app" }, "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status",
			"CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n"},
		{"ambient capabilities", func(q *CreateRequest) {
			q.ResolveUser, q.User = true, "app"
			c := q.Spec.Process.Capabilities
			c.Inheritable, c.Ambient = []string{"CAP_NET_RAW"}, []string{"CAP_NET_RAW"}
		}, "grep -E 'Cap(Eff|Amb)' /proc/self/status", "CapEff:\t0000000000002000\nCapAmb:\t0000000000002000\n"},
		{"no capabilities section", func(q *CreateRequest) { q.Spec.Process.Capabilities = nil }, "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000\n"},
		{"no new privileges", func(q *CreateRequest) { q.Spec.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"user by name", func(q *CreateRequest) { q.ResolveUser, q.User = true, "app" }, "id; echo $HOME", "uid=1000(app) gid=1001(appgrp) groups=44(video),50(staff),1001(appgrp)\n/home/app\n"},
		{"user by number", func(q *CreateRequest) { q.ResolveUser, q.User = true, "1000" }, "id -u; id -g; echo $HOME", "1000\n1001\n/home/app\n"},
		{"user and group", func(q *CreateRequest) { q.ResolveUser, q.User = true, "app:staff" }, "id", "uid=1000(app) gid=50(staff) groups=50(staff)\n"},
		{"unknown number", func(q *CreateRequest) { q.ResolveUser, q.User = true, "4242" }, "id; echo $HOME", "uid=4242 gid=0(root) groups=0(root)\n/\n"},
		{"additional groups", func(q *CreateRequest) { q.ResolveUser, q.Groups = true, []string{"staff", "77"} }, "id", "uid=0(root) gid=0(root) groups=0(root),44(video),50(staff),77\n"},
		{"numbers of the specification", func(q *CreateRequest) {
			q.Spec.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}, Umask: &umask}
		}, "id; umask; echo $HOME", "uid=5 gid=6 groups=7\n0077\n/\n"},
		{"streams belong to the user", func(q *CreateRequest) { q.ResolveUser, q.User = true, "app" }, "echo again > /dev/stdout", "again\n"},
		{"limits of resources", func(q *CreateRequest) { q.Spec.Process.Rlimits = []specs.POSIXRlimit{ulimit} }, "ulimit -n; ulimit -Hn", "100\n200\n"},
		{"oom score", func(q *CreateRequest) { q.Spec.Process.OOMScoreAdj = &adj }, "cat /proc/self/oom_score_adj", "500\n"},
		{"working directory is made", func(q *CreateRequest) { q.Spec.Process.Cwd = "/srv/a/b" }, "pwd", "/srv/a/b\n"},
		{"working directory in a read-only root", func(q *CreateRequest) { q.Spec.Process.Cwd, q.Spec.Root.Readonly = "/opt/new", true }, "pwd; touch x 2>&1", "/opt/new\ntouch: x: Read-only file system\n"},
		{"working directory of others", func(q *CreateRequest) {
			q.Spec.Process.Cwd, q.ResolveUser, q.User = "/root", true, "app"
		}, "pwd; ls 2>&1", "/root\nls: .: Permission denied\n"},
		{"read-only root", func(q *CreateRequest) { q.Spec.Root.Readonly = true }, "touch /x 2>&1; touch /dev/x && echo ok", "touch: /x: Read-only file system\nok\n"},
		{"bind mount", mount(specs.Mount{Destination: "/mnt/new/dir", Type: "bind", Source: share, Options: []string{"rbind"}}),
			"cat /mnt/new/dir/file; touch /mnt/new/dir/ok && echo rw", "shared\nrw\n"},
		{"read-only bind mount of a file", mount(specs.Mount{Destination: "/etc/hosts", Source: filepath.Join(share, "file"), Options: []string{"bind", "ro"}}),
			"cat /etc/hosts; echo x >> /etc/hosts", "shared\nsh: can't create /etc/hosts: Read-only file system\n"},
		{"flags of bind mounts", mount(specs.Mount{Destination: "/mnt/b", Source: share, Options: []string{"rbind", "rro", "nosuid", "nodev", "noexec", "rprivate"}}),
			"grep ' /mnt/b ' /proc/self/mounts | grep -o 'ro,nosuid,nodev,noexec'", "ro,nosuid,nodev,noexec\n"},
		{"tmpfs", mount(specs.Mount{Destination: "/run/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "mode=1770", "nosuid", "noexec"}}),
			"stat -c %a /run/t; grep ' /run/t ' /proc/self/mounts | grep -o 'rw,nosuid,noexec,relatime,size=64k,mode=1770'", "1770\nrw,nosuid,noexec,relatime,size=64k,mode=1770\n"},
		{"tmpfs takes the mode of what it covers", func(q *CreateRequest) {
			for _, d := range []string{"/root", "/nothing/there"} {
				q.Spec.Mounts = append(q.Spec.Mounts, specs.Mount{Destination: d, Type: "tmpfs", Source: "tmpfs"})
			}
		}, "stat -c %a /root; stat -c %a /nothing/there", "700\n1777\n"},
		{"tmpfs with a copy of what was there", mount(specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}}),
			"head -c 4 /etc/passwd; echo; touch /etc/x 2>&1", "root\ntouch: /etc/x: Read-only file system\n"},
		{"options of the file system", func(q *CreateRequest) {
			q.Spec.Mounts = append(q.Spec.Mounts,
				specs.Mount{Destination: "/m1", Type: "tmpfs", Source: "tmpfs", Options: []string{"sync", "dirsync", "lazytime", "silent", "noiversion", "nosuid", "size=64k"}},
				specs.Mount{Destination: "/m2", Type: "tmpfs", Source: "tmpfs", Options: []string{"iversion", "async", "loud", "nodev", "ro", "size=32k"}},
				specs.Mount{Destination: "/m1", Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "size=128k", "async", "noexec"}},
			)
		}, "grep -E ' /m[12] ' /proc/self/mounts | cut -d' ' -f2,4 | sed 's/,inode64//; s/,relatime//; s/,mode=[0-7]*//'",
			"/m1 rw,dirsync,lazytime,nosuid,noexec,size=128k\n/m2 ro,nodev,size=32k\n"},
		{"propagation of the root", func(q *CreateRequest) { q.Spec.Linux.RootfsPropagation = "shared" },
			"grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo | grep -c shared:; mount -t tmpfs x /tmp 2>&1 | grep -c denied", "1\n1\n"},
		{"recursive options", func(q *CreateRequest) {
			q.Spec.Mounts = append(q.Spec.Mounts,
				specs.Mount{Destination: "/tree", Type: "tmpfs", Source: "tmpfs"}, specs.Mount{Destination: "/tree/below", Type: "tmpfs", Source: "tmpfs"},
				specs.Mount{Destination: "/tree", Type: "none", Source: "none", Options: []string{"remount", "bind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnosymfollow"}})
		}, "grep -E ' /tree(/below)? ' /proc/self/mounts | cut -d' ' -f2,4 | sed 's/,inode64//; s/,mode=[0-7]*//'",
			"/tree ro,nosuid,nodev,noexec,noatime,nosymfollow\n/tree/below ro,nosuid,nodev,noexec,noatime,nosymfollow\n"},
		{"sysctl", func(q *CreateRequest) {
			q.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net/ipv4/conf/lo/forwarding": "1"}
		}, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced", "1\n1\n"},
		{"domain name", func(q *CreateRequest) { q.Spec.Domainname = "example.org" }, "cat /proc/sys/kernel/domainname", "example.org\n"},
		{"device", func(q *CreateRequest) {
			q.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/my/fuse", Type: "c", Major: 10, Minor: 229, FileMode: mode(0o640), GID: id(44)}}
		}, "stat -c '%F %t:%T %a %g' /dev/my/fuse", "character special file a:e5 640 44\n"},
		{"cgroup of its own", func(q *CreateRequest) {
			q.Spec.Linux.Namespaces = append(q.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}, "grep -v :/$ /proc/self/cgroup | grep -v name=; ls -d /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | wc -l", "1\n"},
		{"cgroup limits", func(q *CreateRequest) {
			mem, pids, quota, period, shares := int64(32<<20), int64(20), int64(50000), uint64(100000), uint64(512)
			q.Spec.Linux.Resources = &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &mem, Swap: &mem}, Pids: &specs.LinuxPids{Limit: &pids},
				CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
			}
			if !r.cgroups.V2 {
				q.Spec.Linux.Resources.CPU.Cpus = "0"
			}
		}, "cd /sys/fs/cgroup; if [ -d memory ]; then cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus; else " +
			"cat memory.max memory.max pids.max; grep -q '^50000 100000' cpu.max && echo 50000; grep -q 59 cpu.weight && echo 512; echo 0; fi",
			"33554432\n33554432\n20\n50000\n512\n0\n"},
		{"one process", func(q *CreateRequest) {
			one := int64(1)
			q.Spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &one}}
		}, "echo alone; /bin/true; echo", "alone\nsh: can't fork: Resource temporarily unavailable\n"},
		{"personality", func(q *CreateRequest) { q.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "cat /proc/self/personality", "00000008\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := sh(root, tt.script)
			if tt.change != nil {
				tt.change(req)
			}
			if tt.name == "cgroup limits" {
				needsCPULimits(t, r)
			}
			res := mustRun(t, r, req)
			if tt.name == "read-only paths" {
				if !strings.Contains(res.out, "Read-only") {
					t.Errorf("got %q", res.out)
				}
				return
			}
			if diff := cmp.Diff(tt.want, res.out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

// needsCPULimits skips on kernels without them, such as user-mode Linux.
func needsCPULimits(t *testing.T, r *Runtime) {
	t.Helper()
	hi, file := r.cgroups.Unified(), "/cpu.max"
	if !r.cgroups.V2 {
		hi, file = r.cgroups.V1("cpu"), "/cpu.cfs_quota_us"
	}
	name := testID(t)
	if err := r.cgroups.Create("/" + name); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(hi.Dir("/"+name) + file)
	if derr := r.cgroups.Delete(context.Background(), "/"+name); derr != nil {
		t.Error(derr)
	}
	if err != nil {
		t.Skip("this kernel has no limits of processor time")
	}
}

func mode(m os.FileMode) *os.FileMode { return &m }
func id(n uint32) *uint32             { return &n }

func TestStartErrors(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	write := func(name, text string, m os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), m); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/script", "#!/nope\n", 0o755)
	write("etc/junk", "junk", 0o755)
	write("etc/locked", "", 0o600)
	for _, tt := range []struct {
		name   string
		args   []string
		change func(*CreateRequest)
		code   int
		msg    string
	}{
		{"not found", []string{"foo"}, nil, 127, `exec: "foo": executable file not found in $PATH`},
		{"empty", []string{""}, nil, 127, `exec: "": executable file not found in $PATH`},
		{"no such file", []string{"/nope"}, nil, 127, `exec: "/nope": stat /nope: no such file or directory`},
		{"not a directory", []string{"/etc/passwd/x"}, nil, 127, `exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory`},
		{"directory", []string{"/etc"}, nil, 126, `exec: "/etc": is a directory: permission denied`},
		{"not executable", []string{"/etc/passwd"}, nil, 126, `exec: "/etc/passwd": permission denied`},
		{"no interpreter", []string{"/etc/script"}, nil, 127, `exec /etc/script: no such file or directory`},
		{"format", []string{"/etc/junk"}, nil, 126, `exec /etc/junk: exec format error`},
		{"format under init", []string{"/etc/junk"}, func(q *CreateRequest) { q.Init = true }, 126, `exec /etc/junk: exec format error`},
		{"user", []string{"true"}, func(q *CreateRequest) { q.ResolveUser, q.User = true, "foo" }, 126, "unable to find user foo: no matching entries in passwd file"},
		{"group", []string{"true"}, func(q *CreateRequest) { q.ResolveUser, q.User = true, "app:foo" }, 126, "unable to find group foo: no matching entries in group file"},
		{"user range", []string{"true"}, func(q *CreateRequest) { q.ResolveUser, q.User = true, "4294967296" }, 126, "uids and gids must be in range 0-2147483647"},
		{"working directory", []string{"true"}, func(q *CreateRequest) { q.Spec.Process.Cwd = "/etc/passwd" }, 126, `chdir to cwd ("/etc/passwd") set in config.json failed: not a directory`},
		{"working directory of the host", []string{"true"}, func(q *CreateRequest) { q.Spec.Process.Cwd = "/proc/self/fd/6" }, 126,
			`chdir to cwd ("/proc/self/fd/6") set in config.json failed: no such file or directory`},
		{"working directory below a file", []string{"true"}, func(q *CreateRequest) { q.Spec.Process.Cwd = "/etc/passwd/x" }, 126, `chdir to cwd ("/etc/passwd/x") set in config.json failed: not a directory`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &CreateRequest{Spec: testSpec(root, tt.args...)}
			if tt.change != nil {
				tt.change(req)
			}
			_, err := run(t, r, req)
			var start *StartError
			if !errors.As(err, &start) {
				t.Fatalf("got %v, want a StartError", err)
			}
			if start.Code != tt.code || start.Msg != tt.msg {
				t.Errorf("got %d %q, want %d %q", start.Code, start.Msg, tt.code, tt.msg)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	for _, tt := range []struct {
		name   string
		change func(*CreateRequest)
		is     error
		names  string
	}{
		{"user -1", func(q *CreateRequest) { q.Spec.Process.User.UID = math.MaxUint32 }, errdefs.ErrInvalidArgument, "4294967295"},
		{"group -1", func(q *CreateRequest) { q.Spec.Process.User.GID = math.MaxUint32 }, errdefs.ErrInvalidArgument, "4294967295"},
		{"supplementary group -1", func(q *CreateRequest) { q.Spec.Process.User.AdditionalGids = []uint32{math.MaxUint32} }, errdefs.ErrInvalidArgument, "4294967295"},
		{"systemd's path", func(q *CreateRequest) { q.SystemdCgroup, q.Spec.Linux.CgroupsPath = true, "/a/b" }, errdefs.ErrInvalidArgument, "SLICE:PREFIX:NAME"},
		{"rdt", func(q *CreateRequest) { q.Spec.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, errdefs.ErrNotImplemented, "resctrl"},
		{"network device in the host's namespace", func(q *CreateRequest) {
			l := q.Spec.Linux
			l.NetDevices = map[string]specs.LinuxNetDevice{"x0": {}}
			l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		}, errdefs.ErrInvalidArgument, "network namespace"},
		{"network device", func(q *CreateRequest) {
			q.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"wherry-none": {}}
		}, errdefs.ErrNotFound, "wherry-none"},
		{"network device's name", func(q *CreateRequest) {
			q.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x0": {Name: "a/b"}}
		}, errdefs.ErrInvalidArgument, "a/b"},
		{"host sysctl", func(q *CreateRequest) { q.Spec.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, errdefs.ErrInvalidArgument, "kernel.panic"},
		{"hook", func(q *CreateRequest) {
			q.Spec.Hooks = &specs.Hooks{Poststop: nil, CreateRuntime: []specs.Hook{{Path: "true"}}}
		}, errdefs.ErrInvalidArgument, "absolute"},
		{"rlimit", func(q *CreateRequest) { q.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_FOO"}} }, errdefs.ErrInvalidArgument, "RLIMIT_FOO"},
		{"notify", func(q *CreateRequest) {
			q.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}
		}, errdefs.ErrInvalidArgument, "SCMP_ACT_NOTIFY without listenerPath"},
		{"time offsets", func(q *CreateRequest) {
			q.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
		}, errdefs.ErrInvalidArgument, "time namespace"},
		{"clock", func(q *CreateRequest) {
			q.Spec.Linux.Namespaces = append(q.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			q.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
		}, errdefs.ErrInvalidArgument, "realtime"},
		{"memory policy", func(q *CreateRequest) {
			q.Spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_FOO"}
		}, errdefs.ErrInvalidArgument, "MPOL_FOO"},
		{"bind option", func(q *CreateRequest) {
			q.Spec.Mounts = append(q.Spec.Mounts, specs.Mount{Destination: "/x", Source: "/", Options: []string{"bind", "foobar"}})
		}, errdefs.ErrInvalidArgument, "foobar"},
		{"no command", func(q *CreateRequest) { q.Spec.Process.Args = nil }, errdefs.ErrInvalidArgument, "no command specified"},
		{"unified on v1", func(q *CreateRequest) {
			q.Spec.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}
		}, errdefs.ErrInvalidArgument, "unified"},
		{"cgroup path", func(q *CreateRequest) { q.Spec.Linux.CgroupsPath = "/" }, errdefs.ErrInvalidArgument, "cgroup path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &CreateRequest{Spec: testSpec(root, "true")}
			if tt.name == "unified on v1" && r.cgroups.V2 {
				t.Skip("this host has v2")
			}
			tt.change(req)
			_, err := run(t, r, req)
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.names) {
				t.Errorf("got %v, want %v naming %s", err, tt.is, tt.names)
			}
		})
	}
}

// TestRefusedKeepsCgroup: one that somebody made beforehand is not lost by a request
// that cannot be carried out.
func TestRefusedKeepsCgroup(t *testing.T) {
	r := newRuntime(t)
	req := &CreateRequest{ID: testID(t), Spec: testSpec(busyboxRoot(t), "true")}
	if err := r.cgroups.Create("/" + req.ID); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.DeleteCgroup(context.Background(), "/"+req.ID); err != nil {
			t.Error(err)
		}
	})
	req.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_FOO"}}
	if _, err := r.Create(context.Background(), req); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	for i := range r.cgroups.All {
		if _, err := os.Stat(r.cgroups.All[i].Dir("/" + req.ID)); err != nil {
			t.Error(err)
		}
	}
}

// TestLimitsOfNewCgroup: what a limit means may depend on what the cgroup has
// already, which a new one has not, however long the rest takes.
func TestLimitsOfNewCgroup(t *testing.T) {
	r := newRuntime(t)
	if r.cgroups.V2 {
		t.Skip("this host has v2, which refuses the limit")
	}
	req := sh(busyboxRoot(t), "exit 7")
	off := false // what has no effect is no error
	req.Spec.Linux.Resources.Memory = &specs.LinuxMemory{UseHierarchy: &off}
	req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: slices.Repeat([]string{"unknown"}, 1e6), Action: specs.ActErrno}, // takes a while to be left out
	}}
	if res := mustRun(t, r, req); res.code != 7 {
		t.Errorf("got %+v", res)
	}
}

func TestSeccomp(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	for _, nnp := range []bool{false, true} {
		req := sh(root, "grep -E '^Seccomp:' /proc/self/status; unshare -m true 2>&1; mkdir /tmp/ok && echo made")
		req.Spec.Process.NoNewPrivileges = nnp
		var err error
		if req.Spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(req.Spec); err != nil {
			t.Fatal(err)
		}
		res := mustRun(t, r, req)
		want := "Seccomp:\t2\nunshare: unshare(0x20000): Operation not permitted\nmade\n"
		if diff := cmp.Diff(want, res.out); diff != "" {
			t.Errorf("no_new_privs %v (-want +got):\n%s", nnp, diff)
		}
		if err := os.Remove(filepath.Join(root, "tmp/ok")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeccompDeniesChmod(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "chmod 700 /tmp; echo $?")
	req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"chmod", "fchmodat", "fchmod"}, Action: specs.ActErrno},
	}}
	req.ResolveUser, req.User = true, "app"
	res := mustRun(t, r, req)
	if res.out != "chmod: /tmp: Operation not permitted\n1\n" {
		t.Errorf("got %q", res.out)
	}
}

func TestInit(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline | grep -c 'wherry-init -- sh -c cat'; echo $$; (sleep 0.05 & ) ; sleep 0.2; cat /proc/[0-9]*/comm | grep -c sleep; env | grep -c GO; exit 9")
	req.Init = true
	req.ResolveUser, req.User = true, "app"
	res := mustRun(t, r, req)
	lines := strings.Fields(res.out)
	// The orphan has been reaped.
	if res.code != 9 || len(lines) != 5 || lines[0] != "wherry-init" || lines[1] != "1" || lines[2] == "1" || lines[3] != "0" || lines[4] != "0" {
		t.Errorf("got %+v", res)
	}
}

func TestInitWithEmptyArguments(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := &CreateRequest{Spec: testSpec(root, "sh", "-c", "echo $#$1$2", "", "", ""), Init: true}
	if res := mustRun(t, r, req); res.out != "2\n" {
		t.Errorf("%+v", res)
	}
}

func TestInitForwardsSignals(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
	req.Init = true
	req.ID = testID(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	req.Stdout = pw
	c, err := r.Create(context.Background(), req)
	pw.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.PidFD.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, _ := pr.Read(buf)
	if err := unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	m, _ := pr.Read(buf[n:])
	code := wait(t, c.PidFD)
	remove(t, r, c)
	if string(buf[:n+m]) != "ready\ngot\n" || code != 3 {
		t.Errorf("got %q, %d", buf[:n+m], code)
	}
}

func TestAbort(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	c, err := r.Create(context.Background(), &CreateRequest{ID: testID(t), Spec: testSpec(root, "true")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.PidFD.Close()
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	wait(t, c.PidFD)
	remove(t, r, c)
}

func TestCreateCancelled(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	id := testID(t)
	if _, err := r.Create(ctx, &CreateRequest{ID: id, Spec: testSpec(root, "true")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	checkGone(t, r, id)
}

func BenchmarkRun(b *testing.B) {
	r := newRuntime(b)
	root := busyboxRoot(b)
	for b.Loop() {
		if res := mustRun(b, r, &CreateRequest{Spec: testSpec(root, "/bin/true")}); res.code != 0 {
			b.Fatalf("%+v", res)
		}
	}
}
