package systemd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse(t *testing.T) {
	for path, want := range map[string]string{
		"":                          "/system.slice/wherry-id.scope",
		"::n":                       "/system.slice/n.scope",
		"user.slice:docker:n":       "/user.slice/docker-n.scope",
		"a-b-c.slice:p:n":           "/a.slice/a-b.slice/a-b-c.slice/p-n.scope",
		"-.slice:p:n":               "/p-n.scope",
		"machine.slice:libpod:ab12": "/machine.slice/libpod-ab12.scope",
	} {
		u, err := Parse(path, "id")
		if err != nil {
			t.Error(path, err)
			continue
		}
		if got, err := u.Cgroup(); got != want || err != nil {
			t.Errorf("%s: %s %v, want %s", path, got, err, want)
		}
	}
	for _, bad := range []string{"/a/b", "a:b", "x:p:n", "a--b.slice:p:n", "a.slice:p:", "a.slice:p/q:n", ".slice:p:n"} {
		if _, err := Parse(bad, "id"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestMethod checks the body of a message byte for byte, as the D-Bus
// specification lays it out.
func TestMethod(t *testing.T) {
	got := method(7, "", "/o", "a.b", "M", []any{"x", true, []Property{{"P", uint64(5)}}})
	if !bytes.Equal(got[:4], []byte{'l', 1, 0, 1}) || got[8] != 7 {
		t.Fatalf("%q", got)
	}
	fields := int(binary.LittleEndian.Uint32(got[12:]))
	m := message{}
	if err := m.header(&decoder{b: got, at: 16, order: binary.LittleEndian}, 16+fields); err != nil || m.member != "M" {
		t.Errorf("%+v %v", m, err)
	}
	body := got[align(16+fields, 8):]
	if n := binary.LittleEndian.Uint32(got[4:]); int(n) != len(body) {
		t.Errorf("the body has %d bytes, the header says %d", len(body), n)
	}
	wantBody := []byte{
		1, 0, 0, 0, 'x', 0, 0, 0, // string
		1, 0, 0, 0, // boolean
		24, 0, 0, 0, // length of the array, whose structures begin at 16
		1, 0, 0, 0, 'P', 0, 1, 't', 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
	}
	if diff := cmp.Diff(wantBody, body); diff != "" {
		t.Errorf("%s", diff)
	}
}

func p[T any](v T) *T { return &v }

func TestProperties(t *testing.T) {
	res := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(150))},
		CPU:     &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(12345)), Period: p(uint64(100000)), Cpus: "0,9"},
		Pids:    &specs.LinuxPids{Limit: p(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(20))},
		Devices: []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "c", Major: p(int64(1)), Minor: p(int64(3)), Access: "rwm"},
		},
	}
	weight := Weights{CPU: func(uint64) uint64 { return 59 }, IO: func(w uint16) uint64 { return uint64(w) * 10 }}
	devices := []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", []Pair{{"char-*", "m"}, {"/dev/char/1:3", "rwm"}}}}
	want := append([]Property{
		{"MemorySwapMax", uint64(50)}, {"MemoryMax", uint64(100)}, {"CPUWeight", uint64(59)}, {"CPUQuotaPeriodUSec", uint64(100000)},
		{"CPUQuotaPerSecUSec", uint64(130000)}, {"AllowedCPUs", []byte{1, 2}}, {"TasksMax", infinity}, {"IOWeight", uint64(200)},
	}, devices...)
	if diff := cmp.Diff(want, Properties(true, res, weight)); diff != "" {
		t.Error("v2", diff)
	}
	want = append([]Property{
		{"MemoryLimit", uint64(100)}, {"CPUShares", uint64(512)}, {"CPUQuotaPeriodUSec", uint64(100000)},
		{"CPUQuotaPerSecUSec", uint64(130000)}, {"TasksMax", infinity}, {"BlockIOWeight", uint64(20)},
	}, devices...)
	if diff := cmp.Diff(want, Properties(false, res, weight)); diff != "" {
		t.Error("v1", diff)
	}
	// What systemd cannot express it does not hear of.
	res.Devices = append(res.Devices, specs.LinuxDeviceCgroup{Type: "c", Major: p(int64(1)), Minor: p(int64(3)), Access: "w"})
	for _, got := range Properties(true, res, weight) {
		if got.Name == "DevicePolicy" {
			t.Error(got)
		}
	}
}

func TestUnifiedProperties(t *testing.T) {
	for text, want := range map[string][]Property{
		"memory.high=5": {{"MemoryHigh", uint64(5)}}, "pids.max=max": {{"TasksMax", infinity}}, "memory.oom.group=1": nil, "pids.max=x": nil,
		"cpuset.cpus=1":      {{"AllowedCPUs", []byte{2}}},
		"cpu.max=5000 10000": {{"CPUQuotaPeriodUSec", uint64(10000)}, {"CPUQuotaPerSecUSec", uint64(500000)}},
		"cpu.max=50000":      {{"CPUQuotaPerSecUSec", uint64(500000)}}, "cpu.max=max": {{"CPUQuotaPerSecUSec", infinity}}, "cpu.max=x": nil, "cpu.max=1 x": nil,
		"cpu.idle=1": {idle}, "cpu.idle=0": nil,
		"io.weight=default 200": {{"IOWeight", uint64(200)}}, "io.weight=300": {{"IOWeight", uint64(300)}}, "io.weight=8:0 200": nil,
	} {
		key, value, _ := strings.Cut(text, "=")
		res := &specs.LinuxResources{Unified: map[string]string{key: value}}
		if diff := cmp.Diff(want, Properties(true, res, Weights{})); diff != "" {
			t.Error(text, diff)
		}
		if got := Properties(false, res, Weights{}); got != nil {
			t.Errorf("%s on v1: %v", text, got)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(method(1, "d", "/p", "i.f", "m", nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		d := &decoder{b: b, order: binary.LittleEndian}
		var m message
		_ = m.header(d, len(b)) // must not panic
		_, _ = d.text()
	})
}
