// Package profile loads seccomp profiles in the format of Docker's
// --security-opt seccomp=FILE. The daemon uses it to fill the specification;
// the runtime does not link it.
package profile

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Default is the profile of containers that ask for none, for spec's
// capabilities (Spec.Process.Capabilities must be set) and this machine.
func Default(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	return seccomp.GetDefaultProfile(spec)
}

// Load reads a profile's JSON. InvalidArgument if it is none.
func Load(body string, spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	c, err := seccomp.LoadProfile(body, spec)
	if err != nil {
		return nil, fmt.Errorf("load seccomp profile: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return c, nil
}
