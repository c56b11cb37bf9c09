// Package networks is the networks group of the Engine API: it decodes
// requests, calls the network manager and, where containers are concerned, the
// engine, and encodes answers.
package networks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/network"
)

// Connector joins containers to networks and separates them, whether they run
// or not. Network and container are names, IDs or prefixes of IDs.
type Connector interface {
	// ConnectNetwork: NotFound, InvalidArgument, PermissionDenied, Conflict.
	ConnectNetwork(ctx context.Context, network, container string, settings *apinetwork.EndpointSettings) error
	// DisconnectNetwork: NotFound, Conflict, PermissionDenied.
	DisconnectNetwork(ctx context.Context, network, container string, force bool) error
}

// Handlers are the endpoints; every method of the shape of route.Handler is one.
type Handlers struct {
	n   network.Networks
	c   Connector
	now func() time.Time
	p   events.Publisher // may be nil
}

// New returns the endpoints over the network manager and the engine.
func New(n network.Networks, c Connector) Handlers { return Handlers{n: n, c: c, now: time.Now} }

// WithEvents returns the endpoints with a place to publish what they do on
// their own: pruning. The manager publishes the rest.
func (h Handlers) WithEvents(p events.Publisher) Handlers {
	h.p = p
	return h
}

// List answers GET /networks.
func (h Handlers) List(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "name", "id", "driver", "type", "scope", "label", "dangling")
	if err != nil {
		return err
	}
	all, err := h.n.List(r.Context())
	if err != nil {
		return err
	}
	all, err = filter(all, f)
	if err != nil {
		return err
	}
	if !route.AtLeast(r, "1.52") {
		return route.JSON(w, http.StatusOK, legacyList(all, route.AtLeast(r, "1.28")))
	}
	out := make([]apinetwork.Summary, 0, len(all))
	for _, n := range all {
		out = append(out, apinetwork.Summary{Network: n.Network})
	}
	return route.JSON(w, http.StatusOK, out)
}

// legacyList is the list before 1.52, whose elements were those of inspect;
// since 1.28 without containers.
func legacyList(all []apinetwork.Inspect, bare bool) []apinetwork.Inspect {
	out := make([]apinetwork.Inspect, 0, len(all))
	for _, n := range all {
		n.Status = nil
		if bare {
			n.Containers = map[string]apinetwork.EndpointResource{}
		}
		out = append(out, n)
	}
	return out
}

// Inspect answers GET /networks/{id}.
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error {
	if v := r.FormValue("verbose"); v != "" {
		// Verbose adds services of a cluster, of which there are none.
		if _, err := parseBool(v); err != nil {
			return fmt.Errorf("invalid value for verbose: %s: %w", v, err)
		}
	}
	ref := route.Var(r, "id")
	n, err := h.n.Get(r.Context(), ref)
	if err != nil {
		return err
	}
	if scope := r.FormValue("scope"); scope != "" && scope != n.Scope {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", ref))
	}
	if !route.AtLeast(r, "1.52") {
		n.Status = nil
	}
	return route.JSON(w, http.StatusOK, n)
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "t", "true":
		return true, nil
	case "0", "f", "false":
		return false, nil
	}
	return false, errdefs.ErrInvalidArgument
}

// Create answers POST /networks/create.
func (h Handlers) Create(w http.ResponseWriter, r *http.Request) error {
	var req apinetwork.CreateRequest
	if err := body(r, &req); err != nil {
		return err
	}
	resp, err := h.n.Create(context.WithoutCancel(r.Context()), req)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, resp)
}

// body decodes a body that must be there.
func body(r *http.Request, v any) error {
	if !route.HasBody(r) {
		return errdefs.ErrInvalidArgument.WithMessage("invalid JSON: got EOF while reading request body")
	}
	return route.Decode(r, v)
}

// Delete answers DELETE /networks/{id}.
func (h Handlers) Delete(w http.ResponseWriter, r *http.Request) error {
	if err := h.n.Delete(context.WithoutCancel(r.Context()), route.Var(r, "id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Connect answers POST /networks/{id}/connect.
func (h Handlers) Connect(w http.ResponseWriter, r *http.Request) error {
	var req apinetwork.ConnectRequest
	if err := body(r, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return errdefs.ErrInvalidArgument.WithMessage("container name or ID is missing")
	}
	if err := h.c.ConnectNetwork(r.Context(), route.Var(r, "id"), req.Container, req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// Disconnect answers POST /networks/{id}/disconnect.
func (h Handlers) Disconnect(w http.ResponseWriter, r *http.Request) error {
	var req apinetwork.DisconnectRequest
	if err := body(r, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return errdefs.ErrInvalidArgument.WithMessage("container name or ID is missing")
	}
	if err := h.c.DisconnectNetwork(r.Context(), route.Var(r, "id"), req.Container, req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// Prune answers POST /networks/prune: what no container uses goes.
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.Until(h.now())
	if err != nil {
		return err
	}
	all, err := h.n.List(r.Context())
	if err != nil {
		return err
	}
	var report apinetwork.PruneReport
	for _, n := range all {
		if inUse(n) || !until.IsZero() && n.Created.After(until) || !f.Labels("label", n.Labels) || !f.NoLabels("label!", n.Labels) {
			continue
		}
		if err := r.Context().Err(); err != nil {
			return err
		}
		switch err := h.n.Delete(context.WithoutCancel(r.Context()), n.ID); {
		case err == nil:
			report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
		case errdefs.IsFailedPrecondition(err), errdefs.IsNotFound(err): // somebody was faster
		default:
			return errors.Join(fmt.Errorf("prune network %s", n.Name), err)
		}
	}
	if h.p != nil {
		h.p.Publish(apievents.NetworkEventType, apievents.ActionPrune, "", map[string]string{"reclaimed": "0"})
	}
	if p, ok := h.n.(pruner); ok {
		p.Pruned()
	}
	return route.JSON(w, http.StatusOK, report)
}

// pruner is a network manager that announces prunings.
type pruner interface{ Pruned() }

// inUse: predefined, or with containers.
func inUse(n apinetwork.Inspect) bool { return predefined(n.Name) || len(n.Containers) > 0 }

func predefined(name string) bool {
	return slices.Contains([]string{apinetwork.NetworkBridge, apinetwork.NetworkHost, apinetwork.NetworkNone}, name)
}

// filter keeps the networks that a list asks for. InvalidArgument.
func filter(all []apinetwork.Inspect, f route.Filters) ([]apinetwork.Inspect, error) {
	for _, typ := range f["type"] {
		if typ != "custom" && typ != "builtin" {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter: 'type'='%s'", typ))
		}
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(n apinetwork.Inspect) bool {
		kind := "custom"
		if predefined(n.Name) {
			kind = "builtin"
		}
		return !f.Func("name", func(v string) bool { return like(n.Name, v) }) ||
			!f.Func("id", func(v string) bool { return like(n.ID, v) }) ||
			!f.Exact("driver", n.Driver) || !f.Exact("scope", n.Scope) || !f.Exact("type", kind) ||
			!f.Labels("label", n.Labels) || f.Has("dangling") && dangling == inUse(n)
	}), nil
}

// like reports whether a value contains, or matches, what was asked for.
func like(value, pattern string) bool {
	if strings.Contains(value, pattern) {
		return true
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(value)
}
