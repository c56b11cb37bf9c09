// Package containers is the containers and exec groups of the Engine API: it
// decodes requests, calls the engine through the Backend it declares, and
// encodes answers. It decides nothing about containers, and errors become
// status codes in package api only.
package containers

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

// Handlers are the endpoints; every method of the shape of route.Handler is one.
type Handlers struct {
	b Backend
}

// New returns the endpoints over a backend.
func New(b Backend) Handlers { return Handlers{b: b} }

func todo(r *http.Request) error {
	return fmt.Errorf("%s %s is not built yet: %w", r.Method, r.URL.Path, errdefs.ErrNotImplemented)
}
