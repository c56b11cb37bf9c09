package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/launch"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// openNetwork opens the container's sandbox while its caller does other things.
func (e *Engine) openNetwork(ctx context.Context, u *unit, ids container.IDMap, joins launch.Joins) <-chan opened {
	ch := make(chan opened, 1)
	s := u.spec.Load()
	if !netconfig.HasSandbox(s.HostConfig) {
		ch <- opened{undo: func(context.Context) error { return nil }}
		return ch
	}
	req := netconfig.Sandbox(s, e.defaults.Load())
	go func() {
		sb, ns, err := e.openSandbox(ctx, req, ids, joins.Owner)
		ch <- opened{sandbox: sb, ns: ns, err: err, undo: func(ctx context.Context) error {
			if err != nil {
				return nil
			}
			return e.o.Sandboxes.Close(ctx, sb.ID)
		}}
	}()
	return ch
}

// openSandbox opens a sandbox; that of a container with a user namespace belongs to
// it, or to that of the task which shares it.
func (e *Engine) openSandbox(ctx context.Context, req network.SandboxRequest, ids container.IDMap, owner string) (network.Sandbox, *os.File, error) {
	if !ids.IsZero() {
		err := persist(func() (err error) {
			req.NetNS, err = e.o.Tasks.NewNetNS(ctx, task.NetNSRequest{Task: owner, UIDMappings: ids.UIDs, GIDMappings: ids.GIDs})
			return err
		})
		if err != nil {
			return network.Sandbox{}, nil, err
		}
		defer req.NetNS.Close()
	}
	return e.o.Sandboxes.Open(ctx, req)
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

// closeNetwork releases the sandbox of a container that ended.
func (e *Engine) closeNetwork(ctx context.Context, u *unit) error {
	s := u.spec.Load()
	if !netconfig.HasSandbox(s.HostConfig) {
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
		if u.up() && netconfig.HasSandbox(s.HostConfig) {
			err := e.changeLive(ctx, u, func(id network.SandboxID, ns *os.File) error {
				_, err := e.o.Sandboxes.Connect(ctx, id, ns, network.EndpointRequest{Network: nw.Name, Settings: settings.Copy()})
				return err
			})
			if err != nil {
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

// changeLive changes the networks of a container that runs, and its files in /etc with them.
func (e *Engine) changeLive(ctx context.Context, u *unit, change func(id network.SandboxID, ns *os.File) error) error {
	ns, err := e.o.Tasks.NetNS(ctx, string(u.id))
	if err != nil {
		return fmt.Errorf("find network namespace: %w", err)
	}
	defer ns.Close()
	if err := change(network.SandboxID(u.spec.Load().Sandbox), ns); err != nil {
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
		if u.up() && netconfig.HasSandbox(s.HostConfig) {
			err := e.changeLive(ctx, u, func(id network.SandboxID, ns *os.File) error {
				return e.o.Sandboxes.Disconnect(ctx, id, ns, nw.Name, force)
			})
			if err != nil {
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

// opened is a network that was opened for a start.
type opened struct {
	sandbox network.Sandbox
	ns      *os.File
	undo    func(context.Context) error
	err     error
}
