// Package container holds the vocabulary of containers that every subsystem
// shares: identifiers, the immutable spec a user asked for, and the status the
// engine learned. It owns no behaviour and no storage; the live handle of a
// running container belongs to engine/lifecycle.
package container

import (
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ID is the 64 lower-case hexadecimal digits that name one container for ever.
type ID string

// Short is the form people read: the first twelve digits.
func (id ID) Short() string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// Spec is what the user asked for. It never changes after creation, except by
// rename and update, which replace it as a whole.
type Spec struct {
	Version int       `json:"version"`
	ID      ID        `json:"id"`
	Name    string    `json:"name"` // without the leading slash of the API
	Created time.Time `json:"created"`
	// Image is the image ID users see; ImageRef is the reference as the user
	// wrote it; ImageConfig is the digest of the image configuration.
	Image       string `json:"image"`
	ImageRef    string `json:"imageRef"`
	ImageConfig string `json:"imageConfig,omitempty"`
	// Manifest is the platform manifest the container was made from.
	Manifest *ocispec.Descriptor `json:"manifest,omitempty"`
	Platform string              `json:"platform"`
	Driver   string              `json:"driver"` // snapshotter
	// Config is already merged with the image's configuration.
	Config     *apicontainer.Config      `json:"config"`
	HostConfig *apicontainer.HostConfig  `json:"hostConfig"`
	Networking *network.NetworkingConfig `json:"networking"`
	// Sandbox names the network sandbox. It is the container's own ID unless
	// the container joined another one (container:ID, pods).
	Sandbox string `json:"sandbox"`
	// Mounts are the volumes, binds, tmpfs and so on, resolved at creation.
	Mounts []Mount `json:"mounts,omitempty"`
	// LogPath is the current log file, or empty.
	LogPath string `json:"logPath,omitempty"`
}

// Mount is one mount point of a container as resolved at its creation.
type Mount struct {
	Type        mount.Type `json:"type"`
	Name        string     `json:"name,omitempty"`   // of the volume
	Source      string     `json:"source,omitempty"` // on the host; of a volume once known
	Destination string     `json:"destination"`
	Driver      string     `json:"driver,omitempty"`
	// Mode is what the user wrote after the second colon.
	Mode        string            `json:"mode,omitempty"`
	RW          bool              `json:"rw,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	// Copy fills a volume that was never written from the image.
	Copy bool `json:"copy,omitempty"`
	// Anonymous volumes are removed with `rm -v` and by AutoRemove.
	Anonymous bool `json:"anonymous,omitempty"`
	// CreateSource makes a missing directory on the host, as -v does.
	CreateSource bool `json:"createSource,omitempty"`
	// Subpath is below the volume's or image's root.
	Subpath string `json:"subpath,omitempty"`
	// Request is the mount as given by --mount; nil for -v and the image's volumes.
	Request *mount.Mount `json:"request,omitempty"`
	// Options are those of a tmpfs given by --tmpfs.
	Options string `json:"options,omitempty"`
}

// State is the word the API uses for where a container is in its life.
type State string

// States, as the API spells them.
const (
	StateCreated    State = "created"
	StateRunning    State = "running"
	StatePaused     State = "paused"
	StateRestarting State = "restarting"
	StateRemoving   State = "removing"
	StateExited     State = "exited"
	StateDead       State = "dead"
)

// Up reports whether a container in this state has processes, or will by itself.
func (s State) Up() bool { return s == StateRunning || s == StatePaused || s == StateRestarting }

// Status is what the engine learned about a container; it is persisted apart
// from Spec.
type Status struct {
	Version    int       `json:"version"`
	State      State     `json:"state"`
	Pid        int       `json:"pid,omitempty"`
	ExitCode   int       `json:"exitCode"`
	Error      string    `json:"error,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Restarts   int       `json:"restarts,omitempty"`
	// StoppedByUser keeps `unless-stopped` and `always` apart after a reboot.
	StoppedByUser bool `json:"stoppedByUser,omitempty"`
	// Health is the last verdict of the health checks in this life; empty if
	// there was none.
	Health string `json:"health,omitempty"`
	// ExitUnknown is set when both holders of the exit code died (see keeper).
	ExitUnknown bool `json:"exitUnknown,omitempty"`
	// IDs are those that the container's root is mounted with since its last start;
	// zero if it has no user namespace of its own.
	IDs IDMap `json:"ids,omitzero"`
	// LogTrouble says what the log of this life lacks, and why; empty if nothing.
	LogTrouble string `json:"logTrouble,omitempty"`
}
