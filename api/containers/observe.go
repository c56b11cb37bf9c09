package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

func notBuilt(what string) error {
	return errdefs.ErrNotImplemented.WithMessage(what + " is not supported by this engine yet")
}

// List handles GET /containers/json.
func (h Handlers) List(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	f, err := route.ParseFilters(r)
	if err != nil {
		return err
	}
	limit := 0
	if text := r.FormValue("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return invalid("strconv.Atoi: parsing %q: invalid syntax", text)
		}
	}
	list, err := h.b.List(r.Context(), container.ListRequest{
		All: route.Bool(r, "all"), Size: route.Bool(r, "size"), Limit: max(limit, 0), Filters: f,
	})
	if err != nil {
		return err
	}
	for i := range list {
		if !route.AtLeast(r, "1.46") {
			list[i].HostConfig.Annotations = nil
		}
		if !route.AtLeast(r, "1.48") {
			list[i].ImageManifestDescriptor = nil
		}
		if !route.AtLeast(r, "1.52") {
			list[i].Health = nil
		}
	}
	return route.JSON(w, http.StatusOK, list)
}

// Inspect handles GET /containers/{id}/json.
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	c, err := h.b.Inspect(r.Context(), ref(r), route.Bool(r, "size"))
	if err != nil {
		return err
	}
	if !route.AtLeast(r, "1.48") {
		c.ImageManifestDescriptor = nil
	}
	if route.AtLeast(r, "1.52") {
		return route.JSON(w, http.StatusOK, c)
	}
	return inspectOld(w, r, c)
}

// inspectOld adds the fields that clients before 1.52 read: the addresses of
// the default bridge outside Networks, and the driver's data.
func inspectOld(w http.ResponseWriter, r *http.Request, c apicontainer.InspectResponse) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	delete(doc, "Storage")
	doc["GraphDriver"] = map[string]any{"Name": c.Driver, "Data": nil}
	if ns, ok := doc["NetworkSettings"].(map[string]any); ok {
		addLegacyNetwork(ns)
	}
	if cfg, ok := doc["Config"].(map[string]any); ok && !route.AtLeast(r, "1.44") {
		if ep := c.NetworkSettings.Networks[c.HostConfig.NetworkMode.NetworkName()]; ep != nil {
			cfg["MacAddress"] = ep.MacAddress.String()
		}
	}
	return route.JSON(w, http.StatusOK, doc)
}

func addLegacyNetwork(ns map[string]any) {
	for k, v := range map[string]any{
		"Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
		"SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil, "EndpointID": "", "Gateway": "",
		"GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
	} {
		ns[k] = v
	}
	nets, _ := ns["Networks"].(map[string]any)
	bridge, _ := nets["bridge"].(map[string]any)
	for _, k := range []string{
		"EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress",
	} {
		if v, ok := bridge[k]; ok {
			ns[k] = v
		}
	}
}

// Changes handles GET /containers/{id}/changes.
func (h Handlers) Changes(w http.ResponseWriter, r *http.Request) error {
	list, err := h.b.Changes(r.Context(), ref(r))
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, list)
}

// Top handles GET /containers/{id}/top.
func (h Handlers) Top(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	list, err := h.b.Top(r.Context(), ref(r), r.FormValue("ps_args"))
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, list)
}

// Stats handles GET /containers/{id}/stats.
func (h Handlers) Stats(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	stream := route.BoolOr(r, "stream", true)
	oneShot := route.AtLeast(r, "1.41") && route.Bool(r, "one-shot")
	if stream && oneShot {
		return invalid("cannot have stream=true and one-shot=true")
	}
	enc := json.NewEncoder(w)
	started := false
	err := h.b.Stats(r.Context(), ref(r), stream, oneShot, func(s apicontainer.StatsResponse) error {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
		}
		if err := enc.Encode(s); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	if err != nil && started {
		return errors.Join(errStreamEnded, err)
	}
	return err
}

// errStreamEnded marks errors of an answer that had begun.
var errStreamEnded = fmt.Errorf("the answer had begun")
