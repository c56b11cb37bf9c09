package container

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// IDMap says what the users and groups in a container's user namespace are on the
// host. The zero value is that of a container in the host's.
type IDMap struct {
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}

// Overflow is whom files belong to that are nobody's in a user namespace.
const Overflow = 65534

// IsZero tells that there is no user namespace.
func (m IDMap) IsZero() bool { return len(m.UIDs) == 0 }

// Equal tells whether two maps say the same.
func (m IDMap) Equal(o IDMap) bool {
	return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs)
}

// Root is root of the container on the host.
func (m IDMap) Root() (uid, gid int) {
	uid, gid, err := m.ToHost(0, 0)
	if err != nil {
		return Overflow, Overflow
	}
	return uid, gid
}

// ToHost translates ids of the container into those of the host.
func (m IDMap) ToHost(uid, gid int) (hostUID, hostGID int, err error) {
	if m.IsZero() {
		return uid, gid, nil
	}
	u, ok := translate(m.UIDs, uid, func(e specs.LinuxIDMapping) (from, to uint32) { return e.ContainerID, e.HostID })
	if !ok {
		return 0, 0, fmt.Errorf("user %d does not exist in the container's user namespace", uid)
	}
	g, ok := translate(m.GIDs, gid, func(e specs.LinuxIDMapping) (from, to uint32) { return e.ContainerID, e.HostID })
	if !ok {
		return 0, 0, fmt.Errorf("group %d does not exist in the container's user namespace", gid)
	}
	return u, g, nil
}

// FromHost translates ids of the host into those of the container.
func (m IDMap) FromHost(uid, gid uint32) (inUID, inGID uint32) {
	if m.IsZero() {
		return uid, gid
	}
	back := func(e specs.LinuxIDMapping) (from, to uint32) { return e.HostID, e.ContainerID }
	u, ok := translate(m.UIDs, int(uid), back)
	if !ok {
		u = Overflow
	}
	g, ok := translate(m.GIDs, int(gid), back)
	if !ok {
		g = Overflow
	}
	return uint32(u), uint32(g)
}

func translate(list []specs.LinuxIDMapping, id int, ends func(specs.LinuxIDMapping) (from, to uint32)) (int, bool) {
	for _, e := range list {
		from, to := ends(e)
		if id >= int(from) && id-int(from) < int(e.Size) {
			return id - int(from) + int(to), true
		}
	}
	return 0, false
}
