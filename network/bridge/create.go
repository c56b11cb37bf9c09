package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
)

// Create makes a network; see network.Networks.
func (m *Manager) Create(_ context.Context, req network.CreateRequest) (apinetwork.CreateResponse, error) {
	m.admin.Lock()
	defer m.admin.Unlock()
	r, err := m.check(req)
	if err != nil {
		return apinetwork.CreateResponse{}, err
	}
	if err := m.chooseSubnets(&r, req.IPAM); err != nil {
		return apinetwork.CreateResponse{}, err
	}
	n, err := m.add(r)
	if err != nil {
		return apinetwork.CreateResponse{}, err
	}
	if err := m.install(n); err != nil {
		return apinetwork.CreateResponse{}, errors.Join(fmt.Errorf("create network %s: %w", r.Name, err), m.forget(n), m.uninstall(n))
	}
	m.publish(events.ActionCreate, n, nil)
	return apinetwork.CreateResponse{ID: r.ID}, nil
}

// install makes the kernel's side of a network.
func (m *Manager) install(n *netw) error {
	if err := m.makeBridge(n); err != nil {
		return err
	}
	if err := m.table.AddBridge(n.rules()); err != nil {
		// Somebody may have flushed the ruleset.
		if err := m.rebuild(); err != nil {
			return err
		}
	}
	m.forwarding([]*netw{n})
	return m.watch.Check()
}

// uninstall undoes install.
func (m *Manager) uninstall(n *netw) error {
	var errs []error
	if err := m.table.DelBridge(n.rules()); err != nil {
		errs = append(errs, m.rebuild())
	}
	if n.OwnDevice {
		errs = append(errs, m.removeBridge(n))
	}
	return errors.Join(append(errs, m.watch.Check())...)
}

// forget removes a network's record.
func (m *Manager) forget(n *netw) error {
	m.mu.Lock()
	delete(m.networks, n.id())
	m.mu.Unlock()
	return m.o.Store.Delete(bucketNetworks, n.ID)
}

// Delete removes a network; see network.Networks.
func (m *Manager) Delete(_ context.Context, ref string) error {
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	n, err := m.find(ref)
	if err == nil {
		err = n.deletable()
	}
	if err == nil {
		delete(m.networks, n.id()) // nobody joins from now on
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if err := errors.Join(m.forget(n), m.uninstall(n)); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	m.publish(events.ActionDestroy, n, nil)
	return nil
}

// Pruned announces that unused networks were removed.
func (m *Manager) Pruned() {
	if m.o.Events != nil {
		m.o.Events.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	}
}

// deletable is called with Manager.mu held.
func (n *netw) deletable() error {
	if predefinedName(n.Name) {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("%s is a pre-defined network and cannot be removed", n.Name))
	}
	if len(n.endpoints) == 0 {
		return nil
	}
	var who []string
	for _, e := range n.endpoints {
		who = append(who, fmt.Sprintf("name:%q id:%q", e.sandbox.ContainerName, e.ID[:12]))
	}
	return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
		"error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(who, ", ")))
}

func (m *Manager) publish(a events.Action, n *netw, more map[string]string) {
	if m.o.Events == nil {
		return
	}
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	maps.Copy(attrs, more)
	m.o.Events.Publish(events.NetworkEventType, a, n.ID, attrs)
}

// nameRule is what a network's name looks like.
var nameRule = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`) })

// check validates everything but addresses.
func (m *Manager) check(req network.CreateRequest) (record, error) {
	if err := checkKind(req); err != nil {
		return record{}, err
	}
	r := record{Version: recordVersion, OwnDevice: true, MTU: m.o.MTU, BindIP: m.o.BindIP, Network: apinetwork.Network{
		Name: req.Name, ID: newID(), Created: time.Now().UTC(), Scope: "local", Driver: driverBridge,
		EnableIPv4: req.EnableIPv4 == nil || *req.EnableIPv4, EnableIPv6: req.EnableIPv6 != nil && *req.EnableIPv6,
		Internal: req.Internal, Attachable: req.Attachable,
		Options: nonNil(req.Options), Labels: nonNil(req.Labels),
	}}
	r.Device = "br-" + r.ID[:12]
	if err := r.options(); err != nil {
		return record{}, err
	}
	if !r.EnableIPv4 && !r.EnableIPv6 {
		return record{}, errdefs.ErrInvalidArgument.WithMessage("IPv4 or IPv6 must be enabled")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.networks {
		if other.Name == r.Name {
			return record{}, errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("network with name %s already exists", r.Name))
		}
		if other.Device == r.Device {
			return record{}, errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("bridge name already in use: %s belongs to network %s", r.Device, other.Name))
		}
	}
	return r, nil
}

// checkKind refuses what is malformed or not built.
func checkKind(req network.CreateRequest) error {
	switch {
	case strings.TrimSpace(req.Name) == "":
		return errdefs.ErrInvalidArgument.WithMessage("invalid network name: name is empty")
	case predefinedName(req.Name):
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("operation is not permitted on predefined %s network", req.Name))
	case !nameRule().MatchString(req.Name):
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid network name (%s): only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", req.Name))
	case req.Driver == "host" || req.Driver == "null" || req.Driver == "none":
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("only one instance of %q network is allowed", req.Driver))
	case knownDriver(req.Driver):
		return fmt.Errorf("network driver %q is not supported yet: %w", req.Driver, errdefs.ErrNotImplemented)
	case req.Driver != "" && req.Driver != "default" && req.Driver != driverBridge:
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", req.Driver))
	case req.Scope != "" && req.Scope != "local":
		return fmt.Errorf("network scope %q is not supported yet: it needs a cluster: %w", req.Scope, errdefs.ErrNotImplemented)
	case req.Ingress:
		return fmt.Errorf("ingress networks are not supported yet: %w", errdefs.ErrNotImplemented)
	case req.ConfigOnly, req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return fmt.Errorf("config-only and config-from networks are not supported yet: %w", errdefs.ErrNotImplemented)
	case req.IPAM != nil && req.IPAM.Driver != "" && req.IPAM.Driver != "default":
		return fmt.Errorf("IPAM driver %q is not supported yet: %w", req.IPAM.Driver, errdefs.ErrNotImplemented)
	}
	return nil
}

func knownDriver(name string) bool {
	switch name {
	case "macvlan", "ipvlan", "overlay":
		return true
	}
	return false
}

func nonNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
