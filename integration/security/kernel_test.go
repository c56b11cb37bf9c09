package security

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// golden are the system calls that no ordinary container may make.
func golden(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, f := range []string{"denied-syscalls.txt", "denied-syscalls-" + runtime.GOARCH + ".txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", f))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.Fields(string(data))...)
	}
	return names
}

// TestDeniedSyscalls tries every call of the golden list in a default container
// (the class of CVE-2022-0185, CVE-2022-0492, CVE-2026-31431 and of every other
// hole of the kernel that a filter keeps out of reach).
func TestDeniedSyscalls(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	// What an unfiltered container with all capabilities is told shows that the
	// attempts reach the kernel.
	open := answers(cli.OK(t, "run", "--rm", "--privileged", "probe", "/probe", "syscalls"))
	reached := 0
	for label, args := range map[string][]string{
		"run":                {"run", "--rm", "probe"},
		"exec":               {"exec", id},
		"run -u":             {"run", "--rm", "-u", "app", "probe"},
		"run --init":         {"run", "--rm", "--init", "probe"},
		"no new privileges":  {"run", "--rm", "--security-opt", "no-new-privileges", "probe"},
		"all caps dropped":   {"run", "--rm", "--cap-drop", "ALL", "probe"},
		"in host namespaces": {"run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "probe"},
	} {
		t.Run(label, func(t *testing.T) {
			got := answers(cli.OK(t, append(args, "/probe", "syscalls")...))
			for _, name := range golden(t) {
				// ENOSYS: the filter says so of calls newer than its profile.
				errno := got["syscall "+name]
				if errno != "EPERM" && (errno != "ENOSYS" || !slices.Contains(recent, name)) {
					t.Errorf("%s: %q, want EPERM", name, errno)
				}
				if open["syscall "+name] != "EPERM" {
					reached++
				}
			}
			for what, want := range map[string]string{
				"socket AF_ALG": "EPERM", "socket AF_VSOCK": "EPERM", "clone NEWUSER": "EPERM", "clone3": "ENOSYS", "personality ADDR_NO_RANDOMIZE": "EPERM",
			} {
				if got[what] != want {
					t.Errorf("%s: %q, want %s", what, got[what], want)
				}
			}
			for what, errno := range got {
				if strings.HasPrefix(what, "abi ") && errno != "EPERM" {
					t.Errorf("%s: %q, want EPERM", what, errno)
				}
			}
		})
	}
	if reached == 0 {
		t.Error("privileged containers may not make these calls either: the test shows nothing")
	}
	t.Logf("without a filter: %v", open)
}

// recent are calls that a profile may not know yet.
var recent = []string{"file_getattr", "file_setattr", "listns", "open_tree_attr", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr"}

// answers maps what was tried to the error that was told.
func answers(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		for _, word := range []string{"syscall", "socket", "clone", "clone3", "personality", "ioctl", "abi"} {
			if len(f) > 0 && f[0] == word {
				errno, name := "", strings.Join(f, " ")
				if last := f[len(f)-1]; len(f) > 1 && strings.HasPrefix(last, "E") {
					errno, name = last, strings.Join(f[:len(f)-1], " ")
				}
				m[name] = errno
			}
		}
	}
	return m
}

// TestProfileIsThePublishedOne compares the golden list with what the field's
// published default profile denies for the default capabilities: a module of
// another version that allows more does not come in unseen.
func TestProfileIsThePublishedOne(t *testing.T) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: strings.Fields(defaultCapabilities)}}})
	if err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != specs.ActErrno {
		t.Errorf("default action %s", profile.DefaultAction)
	}
	for _, s := range profile.Syscalls {
		for _, name := range s.Names {
			if s.Action == specs.ActAllow && slices.Contains(golden(t), name) {
				t.Errorf("%s is allowed by the published profile: %+v", name, s)
			}
		}
	}
}

const (
	defaultCapabilities = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
	defaultMask         = "00000000a80425fb" // the same as the kernel shows them
	noCapabilities      = "0000000000000000"
)

// TestDefaultCapabilities looks at all five sets in every kind of process
// (CVE-2022-24769: inheritable ones; CVE-2023-25809).
func TestDefaultCapabilities(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	for label, tt := range map[string]struct {
		args                []string
		permitted, bounding string
	}{
		"run":      {[]string{"run", "--rm", "probe"}, defaultMask, defaultMask},
		"run -u":   {[]string{"run", "--rm", "-u", "app", "probe"}, noCapabilities, defaultMask},
		"run -u 0": {[]string{"run", "--rm", "-u", "0:0", "probe"}, defaultMask, defaultMask},
		"--init":   {[]string{"run", "--rm", "--init", "probe"}, defaultMask, defaultMask},
		"dropped":  {[]string{"run", "--rm", "--cap-drop", "ALL", "probe"}, noCapabilities, noCapabilities},
		"exec":     {[]string{"exec", id}, defaultMask, defaultMask},
		"exec -u":  {[]string{"exec", "-u", "1000", id}, noCapabilities, defaultMask},
	} {
		t.Run(label, func(t *testing.T) {
			out := cli.OK(t, append(tt.args, "/bin/cat", "/proc/self/status")...)
			for field, want := range map[string]string{"CapInh": noCapabilities, "CapAmb": noCapabilities, "CapPrm": tt.permitted, "CapEff": tt.permitted, "CapBnd": tt.bounding, "Seccomp": "2"} {
				contains(t, field, out, field+":\t"+want)
			}
		})
	}
}

// Docker's paths, as moby's daemon/pkg/oci/defaults.go lists them.
var (
	masked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// maskedNow adds the paths that Docker masks where a machine has them
// (GHSA-6fw5-f8r9-fgfm).
func maskedNow() []string {
	throttles, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	return append(slices.Clone(masked), throttles...)
}

// TestMaskedPaths goes through the paths one by one (CVE-2025-31133 is the race
// on them): what is hidden is empty and cannot be opened for writing, what is
// read-only cannot either.
func TestMaskedPaths(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	var lists [2][]string
	for i, field := range []string{"MaskedPaths", "ReadonlyPaths"} {
		if err := json.Unmarshal([]byte(cli.OK(t, "inspect", "-f", "{{json .HostConfig."+field+"}}", id)), &lists[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range [][]string{maskedNow(), readonly} {
		for _, p := range want {
			if !slices.Contains(lists[i], p) {
				t.Errorf("%s is not in %v", p, lists[i])
			}
		}
	}
	checkMasks(t, cli, []string{"run", "--rm", "probe"}, []string{"exec", id}, []string{"run", "--rm", "-t", "probe"}, []string{"run", "--rm", "--init", "--read-only", "probe"})
}

// hidden is how a masked file and a masked directory look.
var hidden = regexp.MustCompile(`mode 20666 rdev 1:3 fs 0x|mode 4\d+ rdev 0:0 fs 0x1021994$`)

// checkMasks looks at all masked and read-only paths in a container.
func checkMasks(t *testing.T, cli testenv.CLI, starts ...[]string) {
	t.Helper()
	for _, start := range starts {
		for _, p := range maskedNow() {
			if _, err := os.Lstat(p); err != nil {
				continue // this kernel has none
			}
			out := strings.TrimSpace(strings.ReplaceAll(cli.OK(t, append(start, "/probe", "stat", p)...), "\r", ""))
			if !hidden.MatchString(out) {
				t.Errorf("%v: %s is not hidden: %s", start, p, out)
			}
			out = cli.OK(t, append(start, "/bin/sh", "-c", "cat "+p+" 2>/dev/null; ls -A "+p+" 2>/dev/null | grep -v '^"+p+"$'; true")...)
			if strings.TrimSpace(out) != "" {
				t.Errorf("%v: %s has contents: %.200q", start, p, out)
			}
		}
		for _, p := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/domainname", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/uevent_helper"} {
			if _, err := os.Lstat(p); err != nil {
				continue
			}
			out := cli.OK(t, append(start, "/probe", "write", p)...)
			lacks(t, strings.Join(start, " ")+" write", out, "opened")
		}
	}
}

// TestNullDevice changes what containers have of the host's null device, as its
// owner by number (the class of CVE-2025-31133: what stands for
// something of the host's is the host's): the streams nobody is at, and what hides files.
func TestNullDevice(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	before, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	script := "touch -d 2001-01-01 /proc/keys /proc/timer_list /dev/stdin; test -c /dev/stdin && test -c /proc/keys && echo tried"
	for _, args := range [][]string{{"run", "--rm", "probe"}, {"run", "--rm", "--init", "--read-only", "probe"}, {"exec", id}} {
		contains(t, strings.Join(args, " "), cli.OK(t, append(args, "/bin/sh", "-c", script)...), "tried")
		after, err := os.Stat("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		if after.ModTime().Before(before.ModTime()) {
			t.Errorf("%v: the time of the host's null device was changed from %v to %v", args, before.ModTime(), after.ModTime())
		}
	}
}

// TestReleaseAgent tries what made a cgroup's agent run on the host
// (CVE-2022-0492), a program for core dumps, and the helper of hot plugging.
func TestReleaseAgent(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	script := `find /sys/fs/cgroup /proc/sys/kernel /sys/kernel /sys/fs -maxdepth 3 \( -name release_agent -o -name notify_on_release -o -name core_pattern -o -name modprobe -o -name uevent_helper -o -name cgroup.procs -o -name cgroup.subtree_control -o -name devices.allow -o -name tasks -o -name binfmt_misc \) -exec /probe write {} + 2>/dev/null
mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null && echo made a group opened
mkdir -p /m; mount -t cgroup -o rdma none /m 2>/dev/null && echo mounted cgroup opened
mount -t cgroup2 none /m 2>/dev/null && echo mounted cgroup2 opened
mount -t proc none /m 2>/dev/null && echo mounted proc opened
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null && echo mounted binfmt_misc opened
mount -o remount,rw /proc/sys 2>/dev/null && echo remounted opened
mount -o bind /bin /proc/sys 2>/dev/null && echo bound opened
umount /proc/kcore /proc/sys /sys/firmware 2>/dev/null && echo unmounted opened
true`
	for label, options := range map[string][]string{"default": nil, "private cgroups": {"--cgroupns", "private"}, "host cgroups": {"--cgroupns", "host"}} {
		t.Run(label, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, options...), "probe", "/bin/sh", "-c", script)
			out := cli.OK(t, args...)
			if !strings.Contains(out, "write /sys/fs/cgroup") {
				t.Errorf("no control files were found: %s", out)
			}
			lacks(t, "control files", out, "opened")
		})
	}
}

// TestTerminals takes pseudo-terminals in every way: they are the container's own,
// not the host's.
func TestTerminals(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	before, _ := filepath.Glob("/dev/pts/[0-9]*")
	id := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
	image(t, d, "pts", "{}", file{name: "dev/"}, file{name: "dev/pts/"}, file{name: "dev/ptmx", typ: '3', mode: 0o666, uid: 5},
		file{name: "dev/pts/0", body: "file"}, file{name: "dev/console", link: "/proc/sys/kernel/core_pattern"})
	for label, args := range map[string][]string{"run": {"run", "--rm", "probe"}, "run -t": {"run", "--rm", "-t", "probe"}, "image": {"run", "--rm", "-t", "pts"}, "exec -t": {"exec", "-t", id}} {
		out := strings.ReplaceAll(cli.OK(t, append(args, "/probe", "ptmx")...), "\r", "")
		for _, line := range lines(out, "ptmx") {
			if !regexp.MustCompile(`^ptmx /dev/(pts/)?ptmx \d+ <nil> <nil>$`).MatchString(line) {
				t.Errorf("%s: %s", label, line)
			}
		}
		out = cli.OK(t, append(args, "/bin/sh", "-c", "readlink /dev/ptmx; /probe stat /dev/console /dev/pts")...)
		contains(t, label+": /dev/ptmx", out, "pts/ptmx")
		contains(t, label+": /dev/pts", out, "fs 0x1cd1")
	}
	after, _ := filepath.Glob("/dev/pts/[0-9]*")
	if len(after) > len(before)+2 { // others may use terminals
		t.Errorf("terminals of the host: %v, before %v", after, before)
	}
}

// TestDevices opens what a container must not: nodes are made freely, using them
// is up to the device rules.
func TestDevices(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	out := cli.OK(t, "run", "--rm", "probe", "/bin/sh", "-c", `mknod /tmp/mem c 1 1; mknod /tmp/kmsg c 1 11; mknod /tmp/port c 1 4; mknod /tmp/fuse c 10 229; mknod /tmp/loopc c 10 237; mknod /tmp/kvm c 10 232
for n in 0 1 2 3 4 5 6 7; do mknod /tmp/loop$n b 7 $n; mknod /tmp/vd$n b 253 $n; mknod /tmp/vdb$n b 254 $n; mknod /tmp/sd$n b 8 $n; done; mknod /tmp/tty0 c 4 0; mknod /tmp/console c 5 1; mknod /tmp/dm b 252 0
/probe write /tmp/mem /tmp/kmsg /tmp/port /tmp/fuse /tmp/loopc /tmp/kvm /tmp/loop? /tmp/vd* /tmp/sd? /tmp/tty0 /tmp/dm; /probe write /dev/null`)
	contains(t, "the null device", out, "write /dev/null opened")
	lacks(t, "devices", strings.ReplaceAll(out, "write /dev/null opened", ""), "opened")
	if n := strings.Count(out, "operation not permitted"); n < 30 {
		t.Errorf("only %d were refused:\n%s", n, out)
	}
	// Names of devices that would be paths elsewhere, given by a user.
	canary := newCanary(t)
	for _, name := range []string{"/dev/null:/proc/sys/kernel/core_pattern", "/dev/null:../../../.." + canary.dir + "/node", "/dev/null:/dev/../../../.." + canary.dir + "/node", "/dev/null:/proc/self/root/x", "/dev/null:/sys/x/y", "/dev/null:relative"} {
		r := cli.Try(t, "run", "--rm", "--device", name, "probe", "/bin/true")
		t.Logf("--device %s: %d %.200s", name, r.Code, r.Stderr)
		if r.Code == 0 && strings.HasPrefix(name, "/dev/null:/proc/sys") {
			t.Errorf("a device was laid over %s", name)
		}
	}
}
