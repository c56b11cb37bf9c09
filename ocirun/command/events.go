package command

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// events is refused by name: statistics are read by the engine from the
// cgroups, and no known caller of an OCI runtime asks for them this way.
func events(_ context.Context, _ *globals, _ []string) error {
	return fmt.Errorf("events: %w", errdefs.ErrNotImplemented)
}
