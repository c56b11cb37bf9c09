package mounts

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

func TestParseBind(t *testing.T) {
	bind := func(src, dst string, rw bool, mode string) container.Mount {
		return container.Mount{
			Type: mount.TypeBind, Source: src, Destination: dst, RW: rw, Mode: mode, CreateSource: true,
			Propagation: mount.PropagationRPrivate,
		}
	}
	for _, tc := range []struct {
		in   string
		want container.Mount
		bad  bool
	}{
		{in: "/a:/b", want: bind("/a", "/b", true, "")},
		{in: "/a/:/b/../c:ro", want: bind("/a", "/c", false, "ro")},
		{in: "/a:/b:z,rw", want: bind("/a", "/b", true, "z,rw")},
		{in: "vol:/b", want: container.Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/b", Driver: "local", RW: true, Copy: true}},
		{in: "vol:/b:nocopy", want: container.Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/b", Driver: "local", RW: true, Mode: "nocopy"}},
		{in: "/b", want: container.Mount{Type: mount.TypeVolume, Destination: "/b", Driver: "local", RW: true, Copy: true, Anonymous: true}},
		{in: "", bad: true},
		{in: ":", bad: true},
		{in: "/a:", bad: true},
		{in: "/a:/b:ro:x", bad: true},
		{in: "/a:b", bad: true},
		{in: "/a:/", bad: true},
		{in: "/a:/b:ro,rw", bad: true},
		{in: "/a:/b:nocopy", bad: true},
		{in: "vol:/b:rshared", bad: true},
		{in: "../a:/b", bad: true},
		{in: "a/b:/c", bad: true},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParseBind(tc.in, "")
			if tc.bad {
				if err == nil {
					t.Fatalf("accepted as %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	other := func(string) ([]container.Mount, error) {
		return []container.Mount{{Type: mount.TypeVolume, Name: "v", Destination: "/data", RW: true, Anonymous: true, Copy: true}}, nil
	}
	c := &apicontainer.Config{Volumes: map[string]struct{}{"/data": {}, "/image/vol": {}}}
	h := &apicontainer.HostConfig{
		VolumesFrom: []string{"x:ro"}, Binds: []string{"/a:/image"}, Tmpfs: map[string]string{"/run": "size=1m"},
	}
	got, err := Resolve(c, h, other)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range got {
		names = append(names, string(m.Type)+" "+m.Destination)
	}
	want := []string{"volume /data", "bind /image", "tmpfs /run", "volume /image/vol"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if got[0].RW || got[0].Anonymous {
		t.Errorf("inherited: %+v", got[0])
	}
	h.Binds = append(h.Binds, "/b:/image/")
	if _, err := Resolve(c, h, other); err == nil || err.Error() != "Duplicate mount point: /image" {
		t.Errorf("duplicate: %v", err)
	}
}

func TestNothingOverProc(t *testing.T) {
	for bind, ok := range map[string]bool{
		"/proc:/proc": true, "/a:/proc/cpuinfo": true, "/a:/procedure": true,
		"/a:/proc": false, "v:/proc": false, "/a:/proc/sys": false, "/proc:/proc/1": false, "/x:/a/../proc/self": false,
	} {
		_, err := Resolve(&apicontainer.Config{}, &apicontainer.HostConfig{Binds: []string{bind}}, nil)
		if (err == nil) != ok {
			t.Errorf("%s: %v", bind, err)
		}
	}
	if _, err := Resolve(&apicontainer.Config{Volumes: map[string]struct{}{"/proc": {}}}, &apicontainer.HostConfig{}, nil); err == nil {
		t.Error("an image may hide /proc")
	}
}

func TestTmpfsOptions(t *testing.T) {
	got := OCI(container.Mount{Type: mount.TypeTmpfs, Destination: "/t", Options: "exec,size=2m", RW: true}, Source{}, container.IDMap{})
	if diff := cmp.Diff([]string{"nosuid", "nodev", "exec", "size=2m"}, got.Options); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"lowerdir=/etc", "size=1m,context=x"} {
		if _, err := fromTmpfs("/t", bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestMappedSources: in a user namespace the engine's own directories are mapped,
// those of users are not.
func TestMappedSources(t *testing.T) {
	one := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	ids := container.IDMap{UIDs: one, GIDs: one}
	for _, c := range []struct {
		source Source
		ids    container.IDMap
		want   bool
	}{
		{Source{Path: "/v", Ours: true}, ids, true},
		{Source{Path: "/v", Ours: true}, container.IDMap{}, false},
		{Source{Path: "/home"}, ids, false},
	} {
		got := OCI(container.Mount{Type: mount.TypeVolume, Destination: "/d", RW: true}, c.source, c.ids)
		if slices.Contains(got.Options, "idmap") != c.want || got.Source != c.source.Path {
			t.Errorf("%+v in %v: %+v", c.source, c.ids, got)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/b", "/b", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseBind(s, "")
		if err == nil && (m.Destination == "/" || m.Destination == "" || m.Destination[0] != '/') {
			t.Errorf("%q has the destination %q", s, m.Destination)
		}
	})
}
