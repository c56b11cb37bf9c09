package system

import (
	"expvar"
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/api/route"
)

// Profile answers /debug/pprof and what is below it, when debugging is on.
func (h Handlers) Profile(w http.ResponseWriter, r *http.Request) error {
	if h.o.Debug == nil || !h.o.Debug() {
		return fmt.Errorf("page not found: %w", errdefs.ErrNotFound)
	}
	switch name := route.Var(r, "name"); name {
	case "", "index":
		r.URL.Path = "/debug/pprof/"
		pprof.Index(w, r)
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Handler(name).ServeHTTP(w, r)
	}
	return nil
}

// Vars answers /debug/vars, when debugging is on.
func (h Handlers) Vars(w http.ResponseWriter, r *http.Request) error {
	if h.o.Debug == nil || !h.o.Debug() {
		return fmt.Errorf("page not found: %w", errdefs.ErrNotFound)
	}
	expvar.Handler().ServeHTTP(w, r)
	return nil
}
