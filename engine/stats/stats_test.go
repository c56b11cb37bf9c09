package stats

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadV1(t *testing.T) {
	dir := tree(t, map[string]string{
		"memory/w/c/memory.usage_in_bytes":                    "4096\n",
		"memory/w/c/memory.limit_in_bytes":                    "9223372036854771712\n",
		"memory/w/c/memory.stat":                              "cache 1\ntotal_inactive_file 2\n",
		"cpuacct/w/c/cpuacct.usage":                           "77\n",
		"cpuacct/w/c/cpuacct.stat":                            "user 3\nsystem 4\n",
		"cpuacct/w/c/cpuacct.usage_percpu":                    "70 7 \n",
		"cpu/w/c/cpu.stat":                                    "nr_periods 5\nnr_throttled 6\nthrottled_time 7\n",
		"pids/w/c/pids.current":                               "2\n",
		"pids/w/c/pids.max":                                   "max\n",
		"blkio/w/c/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
	})
	got, err := Read(Source{Cgroup: "/w/c", Mount: dir, MemoryTotal: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if got.MemoryStats.Usage != 4096 || got.MemoryStats.Limit != 1<<30 || got.MemoryStats.Stats["total_inactive_file"] != 2 {
		t.Errorf("memory: %+v", got.MemoryStats)
	}
	wantCPU := apicontainer.CPUUsage{TotalUsage: 77, UsageInUsermode: 30e6, UsageInKernelmode: 40e6, PercpuUsage: []uint64{70, 7}}
	if diff := cmp.Diff(wantCPU, got.CPUStats.CPUUsage); diff != "" {
		t.Error(diff)
	}
	if got.PidsStats.Current != 2 || got.PidsStats.Limit != 0 || got.CPUStats.SystemUsage == 0 {
		t.Errorf("%+v", got)
	}
	want := []apicontainer.BlkioStatEntry{{Major: 8, Op: "Read", Value: 10}, {Major: 8, Op: "Write", Value: 20}}
	if diff := cmp.Diff(want, got.BlkioStats.IoServiceBytesRecursive); diff != "" {
		t.Error(diff)
	}
}

func TestReadV2(t *testing.T) {
	dir := tree(t, map[string]string{
		"cgroup.controllers": "cpu memory\n",
		"w/c/cpu.stat":       "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n",
		"w/c/memory.current": "100\n",
		"w/c/memory.max":     "200\n",
		"w/c/memory.events":  "low 0\noom 3\n",
		"w/c/io.stat":        "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n",
		"w/c/pids.current":   "1\n",
	})
	got, err := Read(Source{Cgroup: "w/c", Mount: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got.CPUStats.CPUUsage.TotalUsage != 9000 || got.CPUStats.ThrottlingData.ThrottledTime != 3000 {
		t.Errorf("cpu: %+v", got.CPUStats)
	}
	if m := got.MemoryStats; m.Usage != 100 || m.Limit != 200 || m.Failcnt != 3 {
		t.Errorf("memory: %+v", m)
	}
	want := []apicontainer.BlkioStatEntry{{Major: 8, Op: "read", Value: 3}, {Major: 8, Op: "write", Value: 4}}
	if diff := cmp.Diff(want, got.BlkioStats.IoServicedRecursive); diff != "" {
		t.Error(diff)
	}
}

func TestReadGone(t *testing.T) {
	if _, err := Read(Source{Cgroup: "none", Mount: t.TempDir()}); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want NotFound", err)
	}
}

func TestNetDev(t *testing.T) {
	got := parseNetDev("Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 20 4 5 6 0 0 0 0\n")
	want := map[string]apicontainer.NetworkStats{"eth0": {RxBytes: 10, RxPackets: 2, RxDropped: 1, TxBytes: 20, TxPackets: 4, TxErrors: 5, TxDropped: 6}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
