package command

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// refused is a command that runc has and this runtime does not.
func refused(name string) func(context.Context, *globals, []string) error {
	return func(context.Context, *globals, []string) error {
		return fmt.Errorf("%s: checkpoints are not built: %w", name, errdefs.ErrNotImplemented)
	}
}
