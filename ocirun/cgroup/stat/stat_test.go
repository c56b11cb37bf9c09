package stat

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func tree(t *testing.T, files map[string]string) dir {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir(root)
}

func TestReadV2(t *testing.T) {
	d := tree(t, map[string]string{
		"cpu.stat":               "usage_usec 7\nuser_usec 5\nsystem_usec 2\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n",
		"cpu.pressure":           "some avg10=0.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
		"cpuset.cpus.effective":  "0-1,3\n",
		"memory.max":             "max\n",
		"memory.current":         "100\n",
		"memory.peak":            "120\n",
		"memory.swap.max":        "50\n",
		"memory.swap.current":    "5\n",
		"memory.events":          "low 0\nhigh 0\nmax 4\noom 1\n",
		"memory.stat":            "anon 60\nfile 30\n",
		"pids.current":           "2\n",
		"pids.max":               "max\n",
		"io.stat":                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n",
		"hugetlb.2MB.current":    "2097152\n",
		"hugetlb.2MB.events":     "max 3\n",
		"hugetlb.2MB.rsvd.max":   "max\n",
		"hugetlb.2MB.rsvd.stuff": "1\n",
	})
	s := &Stats{Hugetlb: map[string]Hugetlb{}}
	readV2(d, s)
	want := &Stats{
		CPU: CPU{Usage: Usage{Total: 7000, User: 5000, Kernel: 2000}, Throttling: Throttling{3, 1, 9000},
			PSI: &PSI{Some: Pressure{Avg10: .5, Avg60: .25, Total: 12}, Full: Pressure{Total: 3}}},
		CPUSet: CPUSet{CPUs: []uint16{0, 1, 3}},
		Memory: Memory{Cache: 30, Usage: MemoryEntry{Limit: math.MaxUint64, Usage: 100, Max: 120, Failcnt: 4}, Raw: map[string]uint64{"anon": 60, "file": 30}},
		Pids:   Pids{Current: 2},
		Blkio: Blkio{
			ServiceBytes: []BlkioEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 0, "Discard", 5}},
			Serviced:     []BlkioEntry{{8, 0, "Read", 3}, {8, 0, "Write", 4}, {8, 0, "Discard", 6}},
		},
		Hugetlb: map[string]Hugetlb{"2MB": {Usage: 2097152, Failcnt: 3}},
	}
	want.Memory.Swap = s.Memory.Swap // below
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if s.Memory.Swap.Usage != 105 {
		t.Errorf("%+v", s.Memory.Swap)
	}
}

func TestBlkioLines(t *testing.T) {
	got := blkioLines("8:0 Read 5\n8:0 Total 6\n8:16 7\nTotal 99\n")
	want := []BlkioEntry{{8, 0, "Read", 5}, {8, 0, "Total", 6}, {8, 16, "", 7}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
