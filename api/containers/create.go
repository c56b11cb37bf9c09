package containers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/ociref"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// createBody is the body of create, with what only older versions have.
type createBody struct {
	apicontainer.CreateRequest
	MacAddress string // of Config; until 1.43 it applied to the container's network
}

// UnmarshalJSON reads the body once for the API's type and once for the rest.
func (b *createBody) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &b.CreateRequest); err != nil {
		return err
	}
	var old struct{ MacAddress string }
	if err := json.Unmarshal(data, &old); err == nil {
		b.MacAddress = old.MacAddress
	}
	return nil
}

// Create handles POST /containers/create.
func (h Handlers) Create(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	if !route.HasBody(r) {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	var body createBody
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if body.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	req := container.CreateRequest{
		Name: r.FormValue("name"), Config: body.Config, HostConfig: body.HostConfig, Networking: body.NetworkingConfig,
	}
	var err error
	if req.Platform, err = platform(r); err != nil {
		return err
	}
	warnings, err := adapt(r, &req, body.MacAddress)
	if err != nil {
		return err
	}
	created, err := h.b.Create(r.Context(), req)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, apicontainer.CreateResponse{
		ID: string(created.ID), Warnings: append(append([]string{}, warnings...), created.Warnings...),
	})
}

func platform(r *http.Request) (*ocispec.Platform, error) {
	text := r.FormValue("platform")
	if text == "" || !route.AtLeast(r, "1.41") {
		return nil, nil
	}
	p, err := ociref.ParsePlatform(text)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, nil
}

// adapt brings what an older client asked for into today's form. It returns warnings.
func adapt(r *http.Request, req *container.CreateRequest, mac string) ([]string, error) {
	if req.HostConfig == nil {
		req.HostConfig = &apicontainer.HostConfig{}
	}
	h := req.HostConfig
	if !route.AtLeast(r, "1.25") {
		h.AutoRemove = false
	}
	if !route.AtLeast(r, "1.40") {
		for _, m := range h.Mounts {
			if m.BindOptions != nil {
				m.BindOptions.NonRecursive = false
			}
		}
		if h.IpcMode == "" {
			h.IpcMode = apicontainer.IPCModeShareable
		}
	}
	if !route.AtLeast(r, "1.41") {
		h.CgroupnsMode = apicontainer.CgroupnsModeHost
	}
	if !route.AtLeast(r, "1.42") {
		for _, m := range h.Mounts {
			if m.BindOptions != nil {
				m.BindOptions.CreateMountpoint = false
			}
		}
	}
	if !route.AtLeast(r, "1.43") {
		h.Annotations = nil
	}
	if !route.AtLeast(r, "1.44") {
		if req.Config.Healthcheck != nil {
			req.Config.Healthcheck.StartInterval = 0
		}
		for _, m := range h.Mounts {
			if m.BindOptions != nil {
				m.BindOptions.ReadOnlyNonRecursive = m.ReadOnly
				m.BindOptions.ReadOnlyForceRecursive = false
			}
		}
		if req.Networking != nil && len(req.Networking.EndpointsConfig) > 1 {
			return nil, manyEndpoints(req.Networking)
		}
	}
	return macAddress(r, req, mac)
}

func manyEndpoints(n *network.NetworkingConfig) error {
	var names []string
	for name := range n.EndpointsConfig {
		names = append(names, name)
	}
	return invalid("Container cannot be connected to network endpoints: %s", strings.Join(names, ", "))
}

// macAddress moves the container-wide address to the endpoint of its network.
func macAddress(r *http.Request, req *container.CreateRequest, text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	var mac network.HardwareAddr
	if err := mac.UnmarshalText([]byte(text)); err != nil {
		return nil, invalid("invalid MAC address: %s", text)
	}
	mode := req.HostConfig.NetworkMode
	if mode.IsHost() || mode.IsContainer() {
		return nil, invalid("conflicting options: mac-address and the network mode")
	}
	name := mode.NetworkName()
	if name == "" || mode.IsDefault() {
		name = network.NetworkBridge
	}
	if req.Networking == nil {
		req.Networking = &network.NetworkingConfig{}
	}
	if req.Networking.EndpointsConfig == nil {
		req.Networking.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	ep := req.Networking.EndpointsConfig[name]
	if ep == nil {
		ep = &network.EndpointSettings{}
		req.Networking.EndpointsConfig[name] = ep
	}
	if len(ep.MacAddress) > 0 && ep.MacAddress.String() != mac.String() {
		return nil, invalid("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = mac
	if route.AtLeast(r, "1.44") {
		return []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}, nil
	}
	return nil, nil
}

// Commit handles POST /commit.
func (h Handlers) Commit(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	var cfg *apicontainer.Config
	if route.HasBody(r) {
		cfg = &apicontainer.Config{}
		if err := route.Decode(r, cfg); err != nil {
			return err
		}
	}
	id, err := h.b.Commit(r.Context(), container.CommitRequest{
		Container: r.FormValue("container"), Repo: r.FormValue("repo"), Tag: r.FormValue("tag"),
		Comment: r.FormValue("comment"), Author: r.FormValue("author"), Pause: route.BoolOr(r, "pause", true),
		Changes: r.Form["changes"], Config: cfg,
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, apicontainer.CommitResponse{ID: id})
}
