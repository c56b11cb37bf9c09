// Package distribution is the distribution group of the Engine API: it asks a
// registry about an image without pulling it.
package distribution

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/ociref"
)

// Backend asks registries. NotFound, Unauthenticated, Unavailable.
type Backend interface {
	Inspect(ctx context.Context, ref ociref.Reference, auth *registry.AuthConfig) (registry.DistributionInspect, error)
}

// Handlers are the endpoints.
type Handlers struct{ b Backend }

// New returns the endpoints over a registry client.
func New(b Backend) Handlers { return Handlers{b} }

// Inspect answers GET /distribution/{name}/json.
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error {
	name := route.Var(r, "name")
	if ociref.IsID(name) {
		return fmt.Errorf("unknown image reference format: %s: %w", name, errdefs.ErrInvalidArgument)
	}
	ref, err := ociref.Parse(name)
	if err != nil {
		return err
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	out, err := h.b.Inspect(r.Context(), ref, auth)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, out)
}

func authOf(r *http.Request) (*registry.AuthConfig, error) {
	head := r.Header.Get(registry.AuthHeader)
	if head == "" {
		return nil, nil //nolint:nilnil // no credentials are no error
	}
	raw, err := base64.URLEncoding.DecodeString(head)
	var a registry.AuthConfig
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return nil, fmt.Errorf("invalid X-Registry-Auth header: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if a == (registry.AuthConfig{ServerAddress: a.ServerAddress}) {
		return nil, nil //nolint:nilnil // no credentials are no error
	}
	return &a, nil
}
