package containers

import (
	"net/http"
	"strconv"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

// Start handles POST /containers/{id}/start.
func (h Handlers) Start(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	if r.FormValue("checkpoint") != "" {
		return notBuilt("starting from a checkpoint")
	}
	if r.ContentLength > 7 || r.ContentLength == -1 && len(r.TransferEncoding) > 0 && r.Header.Get("Content-Type") != "" {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	return noContent(w, h.b.Start(r.Context(), ref(r)))
}

// stopRequest reads t and signal.
func stopRequest(r *http.Request) (container.StopRequest, error) {
	var req container.StopRequest
	if err := route.Form(r); err != nil {
		return req, err
	}
	if route.AtLeast(r, "1.42") {
		req.Signal = r.FormValue("signal")
	}
	if t := r.FormValue("t"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return req, invalid("strconv.Atoi: parsing %q: invalid syntax", t)
		}
		req.Timeout = &n
	}
	return req, nil
}

// Stop handles POST /containers/{id}/stop.
func (h Handlers) Stop(w http.ResponseWriter, r *http.Request) error {
	req, err := stopRequest(r)
	if err != nil {
		return err
	}
	return noContent(w, h.b.Stop(r.Context(), ref(r), req))
}

// Restart handles POST /containers/{id}/restart.
func (h Handlers) Restart(w http.ResponseWriter, r *http.Request) error {
	req, err := stopRequest(r)
	if err != nil {
		return err
	}
	return noContent(w, h.b.Restart(r.Context(), ref(r), req))
}

// Kill handles POST /containers/{id}/kill.
func (h Handlers) Kill(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	return noContent(w, h.b.Kill(r.Context(), ref(r), r.FormValue("signal")))
}

// Pause handles POST /containers/{id}/pause.
func (h Handlers) Pause(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, h.b.Pause(r.Context(), ref(r)))
}

// Unpause handles POST /containers/{id}/unpause.
func (h Handlers) Unpause(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, h.b.Unpause(r.Context(), ref(r)))
}

// Rename handles POST /containers/{id}/rename.
func (h Handlers) Rename(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	return noContent(w, h.b.Rename(r.Context(), ref(r), r.FormValue("name")))
}

// Update handles POST /containers/{id}/update.
func (h Handlers) Update(w http.ResponseWriter, r *http.Request) error {
	var body apicontainer.UpdateConfig
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	warnings, err := h.b.Update(r.Context(), ref(r), body)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, apicontainer.UpdateResponse{Warnings: warnings})
}

// Delete handles DELETE /containers/{id}.
func (h Handlers) Delete(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	return noContent(w, h.b.Delete(r.Context(), ref(r), container.DeleteRequest{
		Force: route.Bool(r, "force"), Volumes: route.Bool(r, "v"), Link: route.Bool(r, "link"),
	}))
}

// Prune handles POST /containers/prune.
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	f, err := route.ParseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return err
	}
	report, err := h.b.Prune(r.Context(), f, until)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, report)
}

// Resize handles POST /containers/{id}/resize.
func (h Handlers) Resize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r)
	if err != nil {
		return err
	}
	return h.b.Resize(r.Context(), ref(r), height, width)
}

// size reads h and w, in cells.
func size(r *http.Request) (height, width int, err error) {
	if err := route.Form(r); err != nil {
		return 0, 0, err
	}
	for _, d := range []struct {
		name string
		dst  *int
	}{{"h", &height}, {"w", &width}} {
		n, err := strconv.ParseUint(r.FormValue(d.name), 10, 32)
		if err != nil {
			return 0, 0, invalid("invalid resize %s %q: value must be a number", map[string]string{"h": "height", "w": "width"}[d.name], r.FormValue(d.name))
		}
		*d.dst = int(min(n, 65535))
	}
	return height, width, nil
}
