package containers

import (
	"net/http"

	"github.com/moby/moby/api/types/common"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

// ExecCreate handles POST /containers/{id}/exec.
func (h Handlers) ExecCreate(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	if !route.HasBody(r) {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	var body apicontainer.ExecCreateRequest
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if !route.AtLeast(r, "1.42") {
		body.ConsoleSize = nil
	}
	id, err := h.b.ExecCreate(r.Context(), ref(r), body)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, common.IDResponse{ID: id})
}

// ExecStart handles POST /exec/{id}/start. A query of again=1, which Docker does
// not have, takes up the streams of an exec that runs.
func (h Handlers) ExecStart(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	var body apicontainer.ExecStartRequest
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if body.Detach && route.Bool(r, "again") {
		return invalid("an exec that is detached from has no streams to take up")
	}
	if body.ConsoleSize != nil && (!body.Tty || !route.AtLeast(r, "1.42")) {
		if route.AtLeast(r, "1.42") {
			return invalid("console size is only supported when TTY is enabled")
		}
		body.ConsoleSize = nil
	}
	req := container.ExecStartRequest{Detach: body.Detach, Tty: body.Tty, ConsoleSize: body.ConsoleSize, Again: route.Bool(r, "again")}
	if !body.Detach {
		req.Conn = &hijacker{w: w, r: r}
	}
	if err := h.b.ExecStart(r.Context(), ref(r), req); err != nil {
		return err
	}
	if body.Detach {
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// ExecInspect handles GET /exec/{id}/json.
func (h Handlers) ExecInspect(w http.ResponseWriter, r *http.Request) error {
	ex, err := h.b.ExecInspect(r.Context(), ref(r))
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, ex)
}

// ExecResize handles POST /exec/{id}/resize.
func (h Handlers) ExecResize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r)
	if err != nil {
		return err
	}
	return h.b.ExecResize(r.Context(), ref(r), height, width)
}
