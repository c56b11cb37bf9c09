package overlay

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot/tree"
)

// Diff implements snapshot.Driver.
func (d *Driver) Diff(ctx context.Context, id container.ID, w io.Writer) error {
	if _, err := d.held(id); err != nil {
		return err
	}
	t := tree.NewWriter(w)
	if err := tree.Walk(ctx, filepath.Join(d.dir(id), upperName), nil, t.Add); err != nil {
		return fmt.Errorf("write the difference of layer %s: %w", id.Short(), err)
	}
	return t.Close()
}
