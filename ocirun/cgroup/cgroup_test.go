package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestParseMounts(t *testing.T) {
	hybrid := `30 20 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/my\040mem rw - cgroup cgroup rw,memory
35 30 0:30 / /elsewhere rw - cgroup cgroup rw,memory
garbage
`
	h := parseMounts([]byte(hybrid))
	want := &Host{All: []Hierarchy{
		{Mount: "/sys/fs/cgroup/systemd", Controllers: []string{"name=systemd"}},
		{Mount: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}},
		{Mount: "/sys/fs/cgroup/my mem", Controllers: []string{"memory"}},
		{Mount: "/sys/fs/cgroup/unified", Unified: true},
	}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
	h = parseMounts([]byte("31 30 0:27 / /sys/fs/cgroup rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"))
	if !h.V2 || h.Unified() == nil || h.Unified().Mount != "/sys/fs/cgroup" {
		t.Errorf("%+v", h)
	}
}

func TestUsualPlaces(t *testing.T) {
	const v1, v2, tmpfs = unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.TMPFS_MAGIC
	for name, c := range map[string]struct {
		own   string
		types map[string]int64
		want  *Host
	}{
		"v2": {"0::/user.slice\n", map[string]int64{"/c": v2}, &Host{V2: true, All: []Hierarchy{{Mount: "/c", Unified: true}}}},
		"v1": {"3:name=systemd:/\n2:cpu,cpuacct:/x:y\n0::/\n", map[string]int64{"/c": tmpfs, "/c/systemd": v1, "/c/cpu,cpuacct": v1}, &Host{All: []Hierarchy{
			{Mount: "/c/systemd", Controllers: []string{"name=systemd"}}, {Mount: "/c/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}},
		}}},
		"hybrid": {"1:pids:/\n0::/\n", map[string]int64{"/c": tmpfs, "/c/pids": v1, "/c/unified": v2}, &Host{All: []Hierarchy{
			{Mount: "/c/pids", Controllers: []string{"pids"}}, {Mount: "/c/unified", Unified: true},
		}}},
		"elsewhere":         {"2:pids:/\n1:cpu:/\n", map[string]int64{"/c": tmpfs, "/c/pids": v1}, nil},
		"v1 beside v2":      {"1:net_cls:/\n0::/\n", map[string]int64{"/c": v2}, nil},
		"v1 below v2":       {"1:net_cls:/\n0::/\n", map[string]int64{"/c": v2, "/c/net_cls": v1}, nil},
		"one v1 for all":    {"1:pids:/\n", map[string]int64{"/c": v1, "/c/pids": v1}, nil},
		"nothing":           {"0::/\n", map[string]int64{"/c": tmpfs, "/c/unified": v2}, nil},
		"unknown hierarchy": {"1:new:/\n", map[string]int64{"/c": tmpfs, "/c/new": v1}, nil},
	} {
		got := usual([]byte(c.own), "/c", func(dir string) int64 { return c.types[dir] })
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCheck(t *testing.T) {
	for path, ok := range map[string]bool{"/a": true, "/a/b": true, "/": false, "": false, "a": false, "/a/..": false, "/a/../../b": false, "//a": false} {
		if (Check(path) == nil) != ok {
			t.Error(path)
		}
	}
}

func p[T any](v T) *T { return &v }

var v2Host = parseMounts([]byte("31 30 0:27 / /nonexistent rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"))

func TestSettingsV2(t *testing.T) {
	got, err := settingsV2(v2Host, "/x", &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(300)), Reservation: p(int64(50))},
		CPU:    &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(5000)), Period: p(uint64(10000)), Cpus: "0-1"},
		Pids:   &specs.LinuxPids{Limit: p(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
			func() (d specs.LinuxThrottleDevice) { d.Major, d.Minor, d.Rate = 8, 0, 99; return d }(),
		}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5}},
		Unified:        map[string]string{"memory.high": "1", "a.b": "2", "io.max": "1:1 rbps=1\n1:2 rbps=2\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []setting{
		{file: "memory.swap.max", value: "200"}, {file: "memory.max", value: "100"}, {file: "memory.low", value: "50"},
		{file: "cpuset.cpus", value: "0-1"}, {file: "cpu.weight", value: "100"}, {file: "cpu.max", value: "5000 10000", late: true},
		{file: "pids.max", value: "max", late: true}, {file: "io.max", value: "8:0 rbps=99"},
		{file: "hugetlb.2MB.max", value: "5"}, {file: "hugetlb.2MB.rsvd.max", value: "5", optional: true},
		{file: "a.b", value: "2"}, {file: "io.max", value: "1:1 rbps=1"}, {file: "io.max", value: "1:2 rbps=2"}, {file: "memory.high", value: "1"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{}), cmpopts.IgnoreFields(setting{}, "controller")); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]*specs.LinuxResources{
		"key":        {Unified: map[string]string{"../x.y": "1"}},
		"processes":  {Unified: map[string]string{"cgroup.procs": "1"}},
		"no dot":     {Unified: map[string]string{"x": "1"}},
		"swap":       {Memory: &specs.LinuxMemory{Swap: p(int64(5))}},
		"swap below": {Memory: &specs.LinuxMemory{Swap: p(int64(5)), Limit: p(int64(6))}},
		"kernel":     {Memory: &specs.LinuxMemory{Kernel: p(int64(5))}},
		"leaf":       {BlockIO: &specs.LinuxBlockIO{LeafWeight: p(uint16(5))}},
		"rdma":       {Rdma: map[string]specs.LinuxRdma{"mlx": {}}},
		"swappiness": {Memory: &specs.LinuxMemory{Swappiness: p(uint64(5))}},
	} {
		if _, err := settingsV2(v2Host, "/x", bad); err == nil {
			t.Error(name)
		}
	}
}

// fakeV2 is a host with files of the cgroup /x and nothing else.
func fakeV2(t *testing.T, files map[string]string) *Host {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "x", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Host{V2: true, All: []Hierarchy{{Mount: dir, Unified: true}}}
}

func TestComplete(t *testing.T) {
	h := fakeV2(t, map[string]string{"cpu.max": "30000 60000\n", "memory.max": "5000\n", "cpu.idle": "1\n"})
	type res = specs.LinuxResources
	cpu := func(c specs.LinuxCPU) *res { return &res{CPU: &c} }
	for name, c := range map[string]struct{ in, want *res }{
		"nothing":    {&res{}, &res{}},
		"period":     {cpu(specs.LinuxCPU{Period: p(uint64(9))}), cpu(specs.LinuxCPU{Period: p(uint64(9)), Quota: p(int64(30000))})},
		"quota":      {cpu(specs.LinuxCPU{Quota: p(int64(-1))}), cpu(specs.LinuxCPU{Quota: p(int64(-1)), Period: p(uint64(60000))})},
		"both":       {cpu(specs.LinuxCPU{Quota: p(int64(8)), Period: p(uint64(9))}), cpu(specs.LinuxCPU{Quota: p(int64(8)), Period: p(uint64(9))})},
		"not idle":   {cpu(specs.LinuxCPU{Idle: p(int64(0))}), cpu(specs.LinuxCPU{Idle: p(int64(0)), Shares: p(uint64(1024))})},
		"swap":       {&res{Memory: &specs.LinuxMemory{Swap: p(int64(9))}}, &res{Memory: &specs.LinuxMemory{Swap: p(int64(9)), Limit: p(int64(5000))}}},
		"swap, both": {&res{Memory: &specs.LinuxMemory{Swap: p(int64(9)), Limit: p(int64(7))}}, &res{Memory: &specs.LinuxMemory{Swap: p(int64(9)), Limit: p(int64(7))}}},
	} {
		if diff := cmp.Diff(c.want, h.Complete("/x", c.in)); diff != "" {
			t.Error(name, diff)
		}
	}
	// No limit is known as such; what is not there is left alone.
	h = fakeV2(t, map[string]string{"cpu.max": "max 60000\n", "memory.max": "max\n"})
	if got := h.Complete("/x", cpu(specs.LinuxCPU{Period: p(uint64(9))})); *got.CPU.Quota != -1 {
		t.Error(*got.CPU.Quota)
	}
	if got := fakeV2(t, nil).Complete("/x", cpu(specs.LinuxCPU{Period: p(uint64(9)), Idle: p(int64(0))})); got.CPU.Quota != nil || got.CPU.Shares != nil {
		t.Errorf("%+v", got.CPU)
	}
}

// TestUnitWeight: what systemd makes of a unit's weight is what we write.
func TestUnitWeight(t *testing.T) {
	bfq, general := fakeV2(t, map[string]string{"io.bfq.weight": ""}), fakeV2(t, nil)
	for w := uint16(10); w <= 1000; w++ {
		unit := bfq.UnitWeight(w)
		if unit > 100 {
			unit = 100 + (unit-100)*900/9900 // systemd.resource-control(5), "IOWeight="
		}
		if unit != uint64(w) || general.UnitWeight(w) != ioWeight(w) {
			t.Errorf("%d: %d, %d", w, unit, general.UnitWeight(w))
		}
	}
}

func TestIOWeight(t *testing.T) {
	for w, want := range map[uint16]uint64{0: 1, 10: 1, 100: 910, 500: 4950, 1000: 10000, 5000: 10000} {
		if got := ioWeight(w); got != want {
			t.Errorf("%d: got %d, want %d", w, got, want)
		}
	}
}

func TestPidsLimit(t *testing.T) {
	for n, want := range map[int64]string{-1: "max", 0: "0", 7: "7"} {
		got, err := settingsV2(v2Host, "/x", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}})
		if err != nil || len(got) != 1 || got[0].value != want {
			t.Errorf("%d: %+v %v", n, got, err)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d: got %d, want %d", shares, got, want)
		}
	}
}

// runDevices interprets a device program.
func runDevices(t *testing.T, prog []insn, typ, access, major, minor int64) bool {
	t.Helper()
	var r [11]int64
	ctx := []int64{access<<16 | typ, major, minor}
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		dst, src := i.regs&0xf, i.regs>>4
		switch i.op {
		case 0x61:
			r[dst] = ctx[i.off/4]
		case 0xbf:
			r[dst] = r[src]
		case 0xb7:
			r[dst] = int64(i.imm)
		case 0x54:
			r[dst] &= int64(uint32(i.imm))
		case 0x74:
			r[dst] >>= i.imm
		case 0x55:
			if r[dst] != int64(i.imm) {
				pc += int(i.off)
			}
		case 0x15:
			if r[dst] == int64(i.imm) {
				pc += int(i.off)
			}
		case 0x95:
			return r[0] == 1
		default:
			t.Fatalf("instruction %#x", i.op)
		}
	}
	t.Fatal("no exit")
	return false
}

func TestDeviceProgram(t *testing.T) {
	prog, err := deviceProgram([]specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Major: p(int64(9)), Access: "rwm"}, // before the reset: without effect
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: p(int64(1)), Minor: p(int64(3)), Access: "rwm"},
		{Allow: true, Type: "b", Major: p(int64(8)), Access: "r"},
		{Allow: true, Type: "c", Major: p(int64(10)), Access: "rw"},
		{Allow: false, Type: "c", Major: p(int64(10)), Minor: p(int64(5)), Access: "w"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const b, c, m, r, w = 1, 2, 1, 2, 4
	for _, tt := range []struct {
		typ, access, major, minor int64
		want                      bool
	}{
		{c, r | w, 1, 3, true}, {c, r, 1, 4, false}, {c, m, 99, 99, true}, {c, m | r, 99, 99, false}, {c, r, 9, 0, false},
		{b, r, 8, 7, true}, {b, w, 8, 7, false}, {b, m, 8, 7, false},
		{c, r | w, 10, 4, true}, {c, r, 10, 5, true}, {c, r | w, 10, 5, false}, {c, w, 10, 5, false},
	} {
		if got := runDevices(t, prog, tt.typ, tt.access, tt.major, tt.minor); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}
