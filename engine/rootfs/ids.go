package rootfs

import (
	"encoding/binary"
	"os"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/internal/fsid"
)

// Root is a file system of a container: the descriptor, and what the owners that the
// host sees through it are to the container.
type Root struct {
	File *os.File
	IDs  container.IDMap
}

// AsRoot calls f, which makes files, as root of a container with the given ids: user
// 0 of the host may own nothing in its file system.
func AsRoot(ids container.IDMap, f func() error) error {
	if ids.IsZero() {
		return f()
	}
	uid, gid := ids.Root()
	return fsid.As(uint32(uid), uint32(gid), f)
}

const capabilityName = "security.capability"

// Layout of that attribute: a word with the revision and flags, two pairs of words
// with the sets and, in revision 3, the user that is root where they hold.
const (
	capsRevision = 0xff000000
	capsV2       = 0x02000000
	capsV3       = 0x03000000
	capsSizeV2   = 20
	capsSizeV3   = 24
)

// CapsFromHost turns capabilities of a file that hold for root of the given ids into
// those that they are in the container.
func CapsFromHost(value []byte, ids container.IDMap) []byte {
	if ids.IsZero() || len(value) != capsSizeV3 {
		return value
	}
	uid, _ := ids.Root()
	if binary.LittleEndian.Uint32(value[capsSizeV2:]) != uint32(uid) {
		return value
	}
	return withRevision(value[:capsSizeV2], capsV2)
}

// CapsToHost is the inverse of CapsFromHost.
func CapsToHost(value []byte, ids container.IDMap) []byte {
	if ids.IsZero() || len(value) != capsSizeV2 {
		return value
	}
	uid, _ := ids.Root()
	return binary.LittleEndian.AppendUint32(withRevision(value, capsV3), uint32(uid))
}

func withRevision(value []byte, revision uint32) []byte {
	out := make([]byte, len(value), capsSizeV3)
	copy(out, value)
	binary.LittleEndian.PutUint32(out, binary.LittleEndian.Uint32(out)&^uint32(capsRevision)|revision)
	return out
}
