// Package system is the group of endpoints about the engine itself: ping,
// version, info, events, disk usage, logging in, profiles.
package system

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/events"
)

// Informer knows the engine and the machine.
type Informer interface {
	Info(ctx context.Context) (*system.Info, error)
	Version() system.VersionResponse
}

// Authenticator checks credentials at a registry. Unauthenticated, Unavailable.
type Authenticator interface {
	// Login returns the identity token that was issued, if any.
	Login(ctx context.Context, auth registry.AuthConfig) (identityToken string, err error)
}

// Options for New. Informer, Events and Logger are required.
type Options struct {
	Informer Informer
	Events   events.Subscriber
	Auth     Authenticator
	Usage    Usage
	// BuilderVersion is what ping announces: "2" for BuildKit, "" for none.
	BuilderVersion string
	// Debug reports whether profiles may be read.
	Debug  func() bool
	Logger *slog.Logger
}

// Handlers answer the endpoints.
type Handlers struct{ o Options }

// New returns the group.
func New(o Options) Handlers { return Handlers{o} }

// Ping answers GET and HEAD /_ping.
func (h Handlers) Ping(w http.ResponseWriter, r *http.Request) error {
	head := w.Header()
	head.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	head.Set("Pragma", "no-cache")
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Swarm", "inactive")
	if h.o.BuilderVersion != "" {
		head.Set("Builder-Version", h.o.BuilderVersion)
	}
	if r.Method == http.MethodHead {
		head.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	head.Set("Content-Length", strconv.Itoa(len("OK")))
	_, err := w.Write([]byte("OK"))
	return err
}

// Version answers GET /version.
func (h Handlers) Version(w http.ResponseWriter, _ *http.Request) error {
	return route.JSON(w, http.StatusOK, h.o.Informer.Version())
}

// Info answers GET /info.
func (h Handlers) Info(w http.ResponseWriter, r *http.Request) error {
	info, err := h.o.Informer.Info(r.Context())
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, forVersion(info, route.Version(r)))
}

// Auth answers POST /auth.
func (h Handlers) Auth(w http.ResponseWriter, r *http.Request) error {
	var auth registry.AuthConfig
	if err := route.Decode(r, &auth); err != nil {
		return err
	}
	token, err := h.o.Auth.Login(r.Context(), auth)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, registry.AuthResponse{IdentityToken: token, Status: "Login Succeeded"})
}

// Options answers OPTIONS of any path.
func (h Handlers) Options(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}
