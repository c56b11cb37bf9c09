package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/network"
)

// hasSandbox reports whether a container has a network sandbox of its own.
func hasSandbox(h *apicontainer.HostConfig) bool {
	return !h.NetworkMode.IsHost() && !h.NetworkMode.IsContainer()
}

// openNetwork opens the container's sandbox while its caller does other things.
func (e *Engine) openNetwork(ctx context.Context, u *unit) <-chan opened {
	ch := make(chan opened, 1)
	s := u.spec.Load()
	if !hasSandbox(s.HostConfig) {
		ch <- opened{undo: func(context.Context) error { return nil }}
		return ch
	}
	req := e.sandboxRequest(s)
	go func() {
		sb, ns, err := e.o.Sandboxes.Open(ctx, req)
		ch <- opened{sandbox: sb, ns: ns, err: err, undo: func(ctx context.Context) error {
			if err != nil {
				return nil
			}
			return e.o.Sandboxes.Close(ctx, sb.ID)
		}}
	}()
	return ch
}

func (e *Engine) sandboxRequest(s *container.Spec) network.SandboxRequest {
	h, d := s.HostConfig, e.defaults.Load()
	req := network.SandboxRequest{
		ID: network.SandboxID(s.Sandbox), ContainerID: string(s.ID), ContainerName: s.Name,
		Hostname: s.Config.Hostname, Endpoints: endpoints(s),
		Ports: h.PortBindings, Exposed: s.Config.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: network.DNS{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions},
		Sysctls: map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
		},
	}
	if len(req.DNS.Servers) == 0 {
		req.DNS.Servers = d.DNS
	}
	if len(req.DNS.Search) == 0 {
		req.DNS.Search = d.DNSSearch
	}
	if len(req.DNS.Options) == 0 {
		req.DNS.Options = d.DNSOptions
	}
	for k, v := range h.Sysctls {
		if strings.HasPrefix(k, "net.") {
			req.Sysctls[k] = v
		}
	}
	return req
}

// nameNetworks replaces IDs of networks in a request by their names. Networks
// that are not there yet may be at the start.
func (e *Engine) nameNetworks(ctx context.Context, req *container.CreateRequest) {
	eps := req.Networking.EndpointsConfig
	for _, ref := range slices.Collect(maps.Keys(eps)) {
		if !apicontainer.NetworkMode(ref).IsUserDefined() {
			continue
		}
		nw, err := e.o.Networks.Get(ctx, ref)
		if err != nil || nw.Name == ref || eps[nw.Name] != nil {
			continue
		}
		eps[nw.Name] = eps[ref]
		delete(eps, ref)
		if req.HostConfig.NetworkMode == apicontainer.NetworkMode(ref) {
			req.HostConfig.NetworkMode = apicontainer.NetworkMode(nw.Name)
		}
	}
}

// endpoints lists the networks to join, that of the mode first.
func endpoints(s *container.Spec) []network.EndpointRequest {
	mode := s.HostConfig.NetworkMode
	if mode.IsNone() || s.Networking == nil {
		return nil
	}
	var out []network.EndpointRequest
	eps := s.Networking.EndpointsConfig
	for _, name := range slices.Sorted(maps.Keys(eps)) {
		if name == apinetwork.NetworkNone || name == apinetwork.NetworkHost {
			continue
		}
		ep := network.EndpointRequest{Network: name, Settings: eps[name].Copy()}
		if name == mode.NetworkName() {
			out = slices.Insert(out, 0, ep)
			continue
		}
		out = append(out, ep)
	}
	return out
}

// closeNetwork releases the sandbox of a container that ended.
func (e *Engine) closeNetwork(ctx context.Context, u *unit) error {
	s := u.spec.Load()
	if !hasSandbox(s.HostConfig) {
		return nil
	}
	if err := e.o.Sandboxes.Close(ctx, network.SandboxID(s.Sandbox)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("release network: %w", err)
	}
	return nil
}

// ConnectNetwork joins a container to a network: at once if it runs, else at
// its next start. NotFound, InvalidArgument, PermissionDenied, Conflict.
func (e *Engine) ConnectNetwork(ctx context.Context, networkRef, ref string, settings *apinetwork.EndpointSettings) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	nw, err := e.o.Networks.Get(ctx, networkRef)
	if err != nil {
		return err
	}
	if settings == nil {
		settings = &apinetwork.EndpointSettings{}
	}
	ctx = context.WithoutCancel(ctx)
	return u.owner.do(func() error {
		s := u.spec.Load()
		if err := errors.Join(connectable(u, nw.Name), check.Endpoint(nw.Name, settings)); err != nil {
			return err
		}
		if _, ok := s.Networking.EndpointsConfig[nw.Name]; ok && nw.Name != apinetwork.NetworkNone {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("endpoint with name %s already exists in network %s", s.Name, nw.Name))
		}
		if u.up() && hasSandbox(s.HostConfig) {
			if err := e.connectLive(ctx, u, nw.Name, settings); err != nil {
				return err
			}
		}
		err := e.setSpec(u, func(n *container.Spec) {
			eps := maps.Clone(s.Networking.EndpointsConfig)
			delete(eps, apinetwork.NetworkNone)
			eps[nw.Name] = settings
			n.Networking = &apinetwork.NetworkingConfig{EndpointsConfig: eps}
			if n.HostConfig.NetworkMode.IsNone() {
				h := *n.HostConfig
				h.NetworkMode = apicontainer.NetworkMode(nw.Name)
				n.HostConfig = &h
			}
		})
		if err == nil {
			e.networkEvent(apievents.ActionConnect, nw.ID, nw.Name, nw.Driver, u)
		}
		return err
	})
}

func (e *Engine) networkEvent(action apievents.Action, id, name, driver string, u *unit) {
	e.o.Events.Publish(apievents.NetworkEventType, action, id, map[string]string{
		"name": name, "type": driver, "container": string(u.id),
	})
}

func connectable(u *unit, name string) error {
	s := u.spec.Load()
	switch mode := s.HostConfig.NetworkMode; {
	case u.status.Load().State == container.StateRemoving:
		return conflict("container %s is marked for removal and cannot be connected or disconnected to the network %s", u.id, name)
	case mode.IsContainer():
		return invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case mode.IsHost(), name == apinetwork.NetworkHost:
		return invalid("cannot connect container to host network: container must be disconnected from host network first")
	case name == apinetwork.NetworkNone:
		return invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

func (e *Engine) connectLive(ctx context.Context, u *unit, name string, settings *apinetwork.EndpointSettings) error {
	ns, err := e.o.Tasks.NetNS(ctx, string(u.id))
	if err != nil {
		return fmt.Errorf("find network namespace: %w", err)
	}
	defer ns.Close()
	id := network.SandboxID(u.spec.Load().Sandbox)
	if _, err := e.o.Sandboxes.Connect(ctx, id, ns, network.EndpointRequest{Network: name, Settings: settings.Copy()}); err != nil {
		return err
	}
	return e.rewriteFiles(ctx, u)
}

// DisconnectNetwork leaves a network. NotFound, Conflict, PermissionDenied.
func (e *Engine) DisconnectNetwork(ctx context.Context, networkRef, ref string, force bool) error {
	nw, err := e.o.Networks.Get(ctx, networkRef)
	if err != nil {
		return err
	}
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	return u.owner.do(func() error {
		s := u.spec.Load()
		if s.HostConfig.NetworkMode.IsHost() {
			return conflict("container cannot be disconnected from host network or connected to host network")
		}
		if _, ok := s.Networking.EndpointsConfig[nw.Name]; !ok {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("container %s is not connected to network %s", u.id, nw.Name))
		}
		if u.up() && hasSandbox(s.HostConfig) {
			if err := e.disconnectLive(ctx, u, nw.Name, force); err != nil {
				return err
			}
		}
		err := e.setSpec(u, func(n *container.Spec) {
			eps := maps.Clone(s.Networking.EndpointsConfig)
			delete(eps, nw.Name)
			n.Networking = &apinetwork.NetworkingConfig{EndpointsConfig: eps}
		})
		if err == nil {
			e.networkEvent(apievents.ActionDisconnect, nw.ID, nw.Name, nw.Driver, u)
		}
		return err
	})
}

func (e *Engine) disconnectLive(ctx context.Context, u *unit, name string, force bool) error {
	ns, err := e.o.Tasks.NetNS(ctx, string(u.id))
	if err != nil {
		return fmt.Errorf("find network namespace: %w", err)
	}
	defer ns.Close()
	if err := e.o.Sandboxes.Disconnect(ctx, network.SandboxID(u.spec.Load().Sandbox), ns, name, force); err != nil {
		return err
	}
	return e.rewriteFiles(ctx, u)
}

// liveNamespaces collects the network namespaces of containers that live.
func (e *Engine) liveNamespaces(ctx context.Context) (map[network.SandboxID]*os.File, error) {
	out := map[network.SandboxID]*os.File{}
	var errs []error
	for _, u := range e.index.all() {
		s := u.spec.Load()
		if !u.up() || !hasSandbox(s.HostConfig) {
			continue
		}
		ns, err := e.o.Tasks.NetNS(ctx, string(u.id))
		if err != nil {
			errs = append(errs, fmt.Errorf("network namespace of %s: %w", u.id.Short(), err))
			continue
		}
		out[network.SandboxID(s.Sandbox)] = ns
	}
	return out, errors.Join(errs...)
}
