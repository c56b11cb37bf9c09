// Package plugins is the group of endpoints about plugins. There are none:
// lists are empty and every name is unknown.
package plugins

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/plugin"

	"github.com/wherry-engine/wherry/api/route"
)

// List answers GET /plugins.
func List(w http.ResponseWriter, r *http.Request) error {
	if _, err := route.ParseFilters(r, "capability", "enabled"); err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, []plugin.Plugin{})
}

// Inspect answers GET /plugins/{name}/json.
func Inspect(_ http.ResponseWriter, r *http.Request) error {
	return fmt.Errorf("plugin %q not found: %w", route.Var(r, "name"), errdefs.ErrNotFound)
}
