package ocirun

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func needsTimeNS(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("this kernel has no time namespaces:", err)
	}
}

const days = 24 * 60 * 60

func withTime(req *CreateRequest) *CreateRequest {
	l := req.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 100 * days, Nanosecs: 5}, "boottime": {Secs: 7000 * days}}
	return req
}

const timeScript = "cut -d. -f1 /proc/uptime; tr -s ' ' < /proc/self/timens_offsets; readlink /proc/self/ns/time"

const timeOffsetLines = "monotonic 8640000 5\nboottime 604800000 0\n"

// checkTime looks at the output of timeScript and returns the namespace.
func checkTime(t *testing.T, out string) string {
	t.Helper()
	up, rest, _ := strings.Cut(out, "\n")
	if n, err := strconv.Atoi(up); err != nil || n < 7000*days {
		t.Errorf("up for %s seconds: %v", up, err)
	}
	ns, ok := strings.CutPrefix(rest, timeOffsetLines)
	own, err := os.Readlink("/proc/self/ns/time")
	if !ok || err != nil || strings.TrimSpace(ns) == own {
		t.Errorf("%q, ours is %s, %v", rest, own, err)
	}
	return strings.TrimSpace(ns)
}

func TestTimeNamespace(t *testing.T) {
	needsTimeNS(t)
	r := newRuntime(t)
	root := busyboxRoot(t)
	checkTime(t, mustRun(t, r, withTime(sh(root, timeScript))).out)
	init := withTime(sh(root, timeScript))
	init.Init = true
	checkTime(t, mustRun(t, r, init).out)
}

func TestTimeNamespaceOfUser(t *testing.T) {
	needsTimeNS(t)
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := withTime(mapped(t, root, timeScript+"; exec sleep 60"))
	c := start(t, r, req)
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", timeScript+"; id -u")
	if err != nil || !strings.HasSuffix(res.out, "\n0\n") {
		t.Fatal(res, err)
	}
	checkTime(t, strings.TrimSuffix(res.out, "0\n"))
}

func TestTimeNamespaceJoined(t *testing.T) {
	needsTimeNS(t)
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := withTime(sh(root, "exec sleep 60"))
	c := start(t, r, req)
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", timeScript)
	if err != nil {
		t.Fatal(err)
	}
	first := checkTime(t, res.out)
	other := sh(root, timeScript)
	other.Spec.Linux.Namespaces = append(other.Spec.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.TimeNamespace, Path: fmt.Sprintf("/proc/%d/ns/time", c.Pid)})
	if diff := cmp.Diff(first, checkTime(t, mustRun(t, r, other).out)); diff != "" {
		t.Error(diff)
	}
}
