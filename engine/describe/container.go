// Package describe says in the API's terms what a container is: what inspect
// shows, its line in a list, and which containers a list's filters want.
package describe

import (
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/network"
)

// Container is what the engine knows of a container at one moment.
type Container struct {
	Spec   *container.Spec
	Status *container.Status
	Health *apicontainer.Health // nil without checks
	// Sandbox returns the network sandbox; nil if the container does not run or
	// has none of its own.
	Sandbox  func() *network.Sandbox
	Dir      string // of the container's own files
	AppArmor string // the default profile
}
