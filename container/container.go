// Package container holds the vocabulary of containers that every subsystem
// shares: identifiers, the immutable spec a user asked for, and the status the
// engine learned. It owns no behaviour and no storage; the live handle of a
// running container belongs to engine/lifecycle.
package container

import (
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
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
	// Image is the digest of the image configuration; ImageRef is the
	// reference as the user wrote it.
	Image    string `json:"image"`
	ImageRef string `json:"imageRef"`
	// Manifest is the digest of the platform manifest the container was made from.
	Manifest string `json:"manifest,omitempty"`
	Platform string `json:"platform"`
	Driver   string `json:"driver"` // snapshotter
	// Config is already merged with the image's configuration.
	Config     *apicontainer.Config      `json:"config"`
	HostConfig *apicontainer.HostConfig  `json:"hostConfig"`
	Networking *network.NetworkingConfig `json:"networking"`
	// Sandbox names the network sandbox. It is the container's own ID unless
	// the container joined another one (container:ID, pods).
	Sandbox string `json:"sandbox"`
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
	// ExitUnknown is set when both holders of the exit code died (see keeper).
	ExitUnknown bool `json:"exitUnknown,omitempty"`
}
