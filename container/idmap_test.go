package container

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestIDMap(t *testing.T) {
	m := IDMap{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 1000, HostID: 500, Size: 10}},
		GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}},
	}
	for _, c := range []struct{ uid, gid, hostUID, hostGID int }{{0, 0, 100000, 200000}, {999, 5, 100999, 200005}, {1009, 65535, 509, 265535}} {
		u, g, err := m.ToHost(c.uid, c.gid)
		if err != nil || u != c.hostUID || g != c.hostGID {
			t.Errorf("%d:%d is %d:%d, %v", c.uid, c.gid, u, g, err)
		}
		if u, g := m.FromHost(uint32(c.hostUID), uint32(c.hostGID)); int(u) != c.uid || int(g) != c.gid {
			t.Errorf("%d:%d of the host is %d:%d", c.hostUID, c.hostGID, u, g)
		}
	}
	for _, c := range [][2]int{{1010, 0}, {0, 65536}, {-1, 0}} {
		if u, g, err := m.ToHost(c[0], c[1]); err == nil {
			t.Errorf("%v is %d:%d", c, u, g)
		}
	}
	if u, g := m.FromHost(0, 0); u != Overflow || g != Overflow {
		t.Errorf("root of the host is %d:%d", u, g)
	}
	var none IDMap
	if u, g, err := none.ToHost(7, 8); u != 7 || g != 8 || err != nil {
		t.Errorf("%d:%d %v", u, g, err)
	}
}
