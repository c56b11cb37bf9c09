package subid

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

func files(t *testing.T, subuid, subgid string) Files {
	t.Helper()
	f := Files{Dir: t.TempDir()}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nmaria:x:1000:1001::/:/bin/sh\n",
		"group":  "root:x:0:\nmaria:x:1001:\ncrew:x:77:\n",
		"subuid": subuid, "subgid": subgid,
	} {
		if err := os.WriteFile(filepath.Join(f.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func ids(list ...uint32) (out []specs.LinuxIDMapping) {
	next := uint32(0)
	for i := 0; i < len(list); i += 2 {
		out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: list[i], Size: list[i+1]})
		next += list[i+1]
	}
	return out
}

func TestResolve(t *testing.T) {
	f := files(t,
		"# comment\n\nmaria:100000:65536\nmaria:300000:1000\nother:1:65536\ndockremap:500000:65536\n4242:600000:65536\n",
		"1001:200000:65536\ncrew:400000:65536\ndockremap:500000:65536\n4242:700000:65536\n")
	maria := ids(100000, 65536, 300000, 1000)
	for value, want := range map[string]container.IDMap{
		"maria":      {UIDs: maria, GIDs: ids(200000, 65536)},
		"1000":       {UIDs: maria, GIDs: ids(200000, 65536)},
		"maria:crew": {UIDs: maria, GIDs: ids(400000, 65536)},
		"1000:77":    {UIDs: maria, GIDs: ids(400000, 65536)},
		"default":    {UIDs: ids(500000, 65536), GIDs: ids(500000, 65536)},
		"4242":       {UIDs: ids(600000, 65536), GIDs: ids(700000, 65536)},
		"4242:77":    {UIDs: ids(600000, 65536), GIDs: ids(400000, 65536)},
	} {
		got, err := f.Resolve(value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
}

func TestRefusals(t *testing.T) {
	const all = "maria:100000:65536\n"
	for name, tc := range map[string]struct{ value, subuid, subgid, want string }{
		"empty user":      {":crew", all, all, "it must be default"},
		"empty group":     {"maria:", all, all, "it must be default"},
		"three parts":     {"maria:crew:x", all, all, "it must be default"},
		"no such user":    {"nemo", all, all, `there is no user "nemo" in`},
		"no such group":   {"maria:nemo", all, all, `there is no group "nemo" in`},
		"root":            {"root", "root:100000:65536\n", "root:100000:65536\n", "root cannot be remapped to itself"},
		"no range":        {"default", all, all, "subuid has no range for dockremap: add a line such as dockremap:100000:65536"},
		"no group range":  {"maria", all, "", "subgid has no range for maria: add a line such as maria:100000:65536"},
		"overlap":         {"maria", "maria:100000:65536\nmaria:165535:10\n", all, "the ranges of maria from 100000 and from 165535 on overlap"},
		"short":           {"maria", "maria:100000:65535\n", all, "the ranges of maria have 65535 ids, and containers need 65536"},
		"root in a range": {"maria", "maria:0:65536\n", all, "entry 1: a range with root of the host cannot be used"},
		"no number":       {"maria", "x:1:1\nmaria:a:65536\n", all, `entry 2: "maria:a:65536" is not name:first:count`},
		"no fields":       {"maria", "maria:1\n", all, "is not name:first:count"},
		"too far":         {"maria", "maria:4294967290:65536\n", all, "is not name:first:count"},
		"too many":        {"maria", strings.Repeat("maria:100000:1\n", 341), all, "has 341 ranges for maria: the kernel takes 340"},
	} {
		_, err := files(t, tc.subuid, tc.subgid).Resolve(tc.value)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `userns-remap "`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := files(t, all, all)
	if err := os.Remove(filepath.Join(f.Dir, "subuid")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Resolve("maria"); err == nil || !strings.Contains(err.Error(), "has no range for maria") {
		t.Errorf("no file: %v", err)
	}
}
