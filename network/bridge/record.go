package bridge

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/ipam"
	"github.com/wherry-engine/wherry/network/nft"
)

// Drivers of this manager.
const (
	driverBridge = "bridge"
	driverHost   = "host"
	driverNull   = "null"
)

// Buckets of the store, and the version of what is in them.
const (
	bucketNetworks  = "networks"
	bucketSandboxes = "sandboxes"
	recordVersion   = 1
)

// record is one network, as persisted.
type record struct {
	Version int `json:"version"`
	apinetwork.Network
	Device string `json:"device,omitempty"`
	// OwnDevice: the device is ours to change and to remove.
	OwnDevice bool `json:"ownDevice,omitempty"`
	MTU       int  `json:"mtu,omitempty"`
	NoICC     bool `json:"noIcc,omitempty"`
	NoMasq    bool `json:"noMasq,omitempty"`
	Default   bool `json:"default,omitempty"`
	// BindIP for ports that name no address.
	BindIP netip.Addr `json:"bindIp,omitzero"`
	// Prefix of container interface names; "eth" if empty.
	IfPrefix string `json:"ifPrefix,omitempty"`
}

// netw is a network that exists. Its record does not change.
type netw struct {
	record
	index     int // of the device; guarded by Manager.admin
	subnets   []*subnet
	endpoints map[network.SandboxID]*endpoint
}

// subnet joins a configured prefix with its allocator and the containers' gateway.
type subnet struct {
	*ipam.Space
	bridge  netip.Addr // the bridge's own address
	gateway netip.Addr
}

func (n *netw) id() network.ID { return network.ID(n.ID) }

// rules is the network as the firewall sees it.
func (n *netw) rules() nft.Bridge {
	b := nft.Bridge{Device: n.Device, Internal: n.Internal, Open: !n.NoICC, Masquerade: !n.NoMasq && !n.Internal}
	for _, s := range n.subnets {
		b.Subnets = append(b.Subnets, s.Subnet())
	}
	return b
}

// predefinedName reports whether a name is the engine's own.
func predefinedName(name string) bool {
	switch name {
	case apinetwork.NetworkBridge, apinetwork.NetworkHost, apinetwork.NetworkNone, apinetwork.NetworkDefault:
		return true
	}
	return false
}

// newID returns 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// open makes the allocators of a network's subnets.
func open(r record) (*netw, error) {
	n := &netw{record: r, endpoints: map[network.SandboxID]*endpoint{}}
	for _, c := range r.IPAM.Config {
		s, err := ipam.NewSpace(c.Subnet, c.IPRange)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", r.Name, err)
		}
		for _, a := range c.AuxAddress {
			if err := s.Take(a); err != nil {
				return nil, fmt.Errorf("network %s: auxiliary address %s: %w", r.Name, a, err)
			}
		}
		if err := s.Take(c.Gateway); err != nil {
			return nil, fmt.Errorf("network %s: gateway %s: %w", r.Name, c.Gateway, err)
		}
		n.subnets = append(n.subnets, &subnet{Space: s, bridge: c.Gateway, gateway: c.Gateway})
	}
	return n, nil
}

// load reads the persisted networks, then the sandboxes.
func (m *Manager) load() error {
	err := m.o.Store.ForEach(bucketNetworks, func(key string, value []byte) error {
		var r record
		if err := decode(value, &r, &r.Version); err != nil {
			return fmt.Errorf("network %s: %w", key, err)
		}
		n, err := open(r)
		if err != nil {
			return err
		}
		m.networks[n.id()] = n
		return nil
	})
	if err != nil {
		return err
	}
	return m.o.Store.ForEach(bucketSandboxes, func(key string, value []byte) error {
		s := &sandbox{}
		if err := decode(value, s, &s.Version); err != nil {
			return fmt.Errorf("sandbox %s: %w", key, err)
		}
		m.sandboxes[s.ID] = s
		return nil
	})
}

func decode(value []byte, v any, version *int) error {
	if err := json.Unmarshal(value, v); err != nil {
		return err
	}
	if *version > recordVersion {
		return fmt.Errorf("it was written by a newer engine (version %d): %w", *version, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// add registers and persists a network.
func (m *Manager) add(r record) (*netw, error) {
	n, err := open(r)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	put := m.o.Store.Put
	if d, ok := m.o.Store.(interface {
		PutDurable(bucket, key string, value []byte) error
	}); ok {
		put = d.PutDurable
	}
	if err := put(bucketNetworks, r.ID, raw); err != nil {
		return nil, fmt.Errorf("save network %s: %w", r.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networks[n.id()] = n
	return n, nil
}

// bridged lists the networks that have a bridge, by name. Called with m.mu held.
func (m *Manager) bridged() []*netw {
	var out []*netw
	for _, n := range m.networks {
		if n.Driver == driverBridge {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *netw) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// byName finds a network by its full name. Called with m.mu held.
func (m *Manager) byName(name string) *netw {
	for _, n := range m.networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// find resolves a full ID, a name, or an unambiguous prefix of an ID. Called
// with m.mu held. NotFound, InvalidArgument if ambiguous.
func (m *Manager) find(ref string) (*netw, error) {
	if n := m.networks[network.ID(ref)]; n != nil {
		return n, nil
	}
	if ref == apinetwork.NetworkDefault {
		ref = apinetwork.NetworkBridge
	}
	if n := m.byName(ref); n != nil {
		return n, nil
	}
	var found *netw
	for _, n := range m.networks {
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			if found != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("network %s is ambiguous (2 matches found based on ID prefix)", ref))
			}
			found = n
		}
	}
	if found == nil {
		return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", ref))
	}
	return found, nil
}
