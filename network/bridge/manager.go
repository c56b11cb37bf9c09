// Package bridge is the network manager: networks of the bridge driver and the
// predefined ones, and the sandboxes with endpoints in them. It owns the bridge
// devices, the veth pairs, the addresses, the published ports and one nftables
// table. Namespaces belong to whoever Open gave them to; what must outlive the
// daemon (name service, reserved ports) is left with the net helper.
package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/wherry-engine/wherry/dataplane/wire"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/ipam"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/nft"
	"github.com/wherry-engine/wherry/network/ports"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// Store persists networks and live sandboxes. Put need not be durable: what is
// lost in a power cut is rebuilt from the containers that live. A store that
// also has PutDurable, of the same signature, gets networks through it.
type Store interface {
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	ForEach(bucket string, fn func(key string, value []byte) error) error
}

// DataPlane is the net helper as the manager uses it; dataplane/client is it.
// Descriptors stay the caller's.
type DataPlane interface {
	// Put hands over a sandbox with the sockets of its ports and its name server.
	Put(ctx context.Context, s wire.Sandbox, files []int) error
	// Drop forgets it; the ports are free on return.
	Drop(ctx context.Context, id string) error
	// List names the sandboxes that the helper has.
	List(ctx context.Context) ([]string, error)
	Close() error
}

// Options of a Manager. The zero value of each field is a usable default
// except Store and Logger.
type Options struct {
	// ExecRoot tells several daemons on one machine apart: the names of the
	// nftables table and the aliases of devices derive from it. Default /run/wherry.
	ExecRoot string
	// Bridge is the device of the default bridge, "wherry0" if empty; "none"
	// disables the default bridge. A device that is missing is made.
	Bridge string
	// BridgeIP is the default bridge's own address and subnet (--bip, --bip6).
	BridgeIP, BridgeIP6 netip.Prefix
	// FixedCIDR limits the default bridge's container addresses.
	FixedCIDR, FixedCIDR6 netip.Prefix
	// Gateway of containers on the default bridge, if it is not the bridge itself.
	Gateway, Gateway6 netip.Addr
	// Pools that subnets are taken from; Docker's if empty.
	Pools []ipam.Pool
	MTU   int // bytes; 1500 if 0
	// BindIP is where ports are published when no address is given (--ip). The
	// zero value and 0.0.0.0 mean all addresses of both families.
	BindIP netip.Addr
	// IPv6 enables IPv6 on the default bridge.
	IPv6 bool
	// NoICC forbids traffic between containers of the default bridge (--icc=false).
	NoICC bool
	// NoMasquerade leaves the default bridge's addresses as they are on the way out (--ip-masq=false).
	NoMasquerade bool
	// NoForward leaves the kernel's forwarding settings alone (--ip-forward=false).
	NoForward bool
	// NoRules4 and NoRules6 install no rules for that family (--iptables=false, --ip6tables=false).
	NoRules4, NoRules6 bool
	// LeaveForeign only reports a foreign firewall that drops forwarded packets.
	LeaveForeign bool
	// HostGateway answers host-gateway; empty: the default bridge's address.
	HostGateway []netip.Addr
	// PoolSize is the number of namespaces kept ready: 6 if 0, none if negative.
	PoolSize int
	Store    Store
	// Events may be nil.
	Events events.Publisher
	// DataPlane may be nil: then the manager holds the ports itself, without
	// a proxy, and there is no name service.
	DataPlane DataPlane
	Logger    *slog.Logger
}

// Manager implements network.Networks, and network.Sandboxes by its method Sandboxes.
type Manager struct {
	o     Options
	alias string // of our devices
	nl    *rtnl.Conn
	table *nft.Table
	watch *nft.Foreign // foreign firewalls
	pool  *netns.Pool
	ports *ports.Table
	back  *background
	ip6   bool // the host can bind IPv6 sockets

	admin sync.Mutex // serialises making and removing of networks; taken before mu

	mu        sync.Mutex // guards everything below, and the networks and sandboxes in it
	networks  map[network.ID]*netw
	sandboxes map[network.SandboxID]*sandbox
	held      map[network.SandboxID][]ports.Bound // without a DataPlane
}

var _ network.Networks = (*Manager)(nil)

const defaultPoolSize = 6

// New loads the persisted networks and sandboxes, makes the bridges and writes
// the rules, so that the containers that live are served, and starts the pool
// of namespaces. Restore tells it later which sandboxes ended meanwhile.
func New(_ context.Context, o Options) (*Manager, error) {
	o.defaults()
	if err := ipam.CheckPools(o.Pools); err != nil {
		return nil, err
	}
	m := &Manager{
		o: o, alias: "wherry:" + o.instance(), ports: ports.NewTable(), ip6: hasIPv6(),
		networks: map[network.ID]*netw{}, sandboxes: map[network.SandboxID]*sandbox{},
		held: map[network.SandboxID][]ports.Bound{},
	}
	if err := m.begin(); err != nil {
		return nil, errors.Join(err, m.release())
	}
	return m, nil
}

// begin does what New promises.
func (m *Manager) begin() (err error) {
	o := m.o
	if m.nl, err = rtnl.Dial(); err != nil {
		return err
	}
	if m.table, err = nft.New(nft.Options{Name: o.table(), IPv4: !o.NoRules4, IPv6: !o.NoRules6}); err != nil {
		return err
	}
	m.watch = nft.NewForeign(nft.ForeignOptions{
		Tag: o.table(), IPv4: !o.NoRules4, IPv6: !o.NoRules6, Leave: o.LeaveForeign, Logger: o.Logger, Devices: m.devices,
		Lost: m.rebuild,
	})
	m.back = newBackground(m.nl, o.Logger, o.linkGroup())
	if err := m.load(); err != nil {
		return err
	}
	if err := m.predefine(); err != nil {
		return err
	}
	m.adopt()
	m.sweep()
	if err := m.raise(); err != nil {
		return err
	}
	return m.startPool()
}

func (o *Options) defaults() {
	if o.ExecRoot == "" {
		o.ExecRoot = "/run/wherry"
	}
	if o.Bridge == "" {
		o.Bridge = "wherry0"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if len(o.Pools) == 0 {
		o.Pools = ipam.DefaultPools()
	}
	if o.BindIP == netip.IPv4Unspecified() {
		o.BindIP = netip.Addr{}
	}
	if o.PoolSize == 0 {
		o.PoolSize = defaultPoolSize
	}
}

// instance is a short name of the daemon.
func (o *Options) instance() string {
	sum := sha256.Sum256([]byte(o.ExecRoot))
	return hex.EncodeToString(sum[:4])
}

// linkGroup numbers the links that are to be removed.
func (o *Options) linkGroup() uint32 {
	sum := sha256.Sum256([]byte(o.ExecRoot))
	return binary.BigEndian.Uint32(sum[:]) | 1<<30
}

// table is the name of the nftables table.
func (o *Options) table() string {
	if o.ExecRoot == "/run/wherry" {
		return "wherry"
	}
	return "wherry-" + o.instance()
}

// presets are the sysctls of every namespace. The engine asks for the first
// two in every container; IPv6 is turned on for interfaces that have it.
func presets() map[string]string {
	return map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
		"net.ipv6.conf.default.disable_ipv6":  "1",
	}
}

func (m *Manager) startPool() (err error) {
	m.pool, err = netns.NewPool(netns.PoolOptions{
		Size: max(m.o.PoolSize, 0), Sysctls: presets(), Alias: m.alias, MTU: m.o.MTU, Logger: m.o.Logger,
	})
	return err
}

// raise makes what the kernel must have for the networks.
func (m *Manager) raise() error {
	m.mu.Lock()
	list := m.bridged()
	m.mu.Unlock()
	for _, n := range list {
		if err := m.makeBridge(n); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	if err := m.rebuild(); err != nil {
		return err
	}
	if len(list) > 0 {
		m.forwarding(list)
	}
	m.watch.Start()
	return nil
}

// rebuild writes the whole table anew.
func (m *Manager) rebuild() error {
	m.mu.Lock()
	var bridges []nft.Bridge
	var published []nft.Port
	for _, n := range m.bridged() {
		bridges = append(bridges, n.rules())
	}
	for _, s := range m.sandboxes {
		published = append(published, s.rules()...)
	}
	m.mu.Unlock()
	if err := m.table.Reset(bridges, published); err != nil {
		return fmt.Errorf("install firewall rules: %w", err)
	}
	return nil
}

// devices lists our bridges.
func (m *Manager) devices() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, n := range m.bridged() {
		out = append(out, n.Device)
	}
	return out
}

// Shutdown ends the background work and leaves the sandboxes as they are. With
// remove, which is for a daemon that ends with no container left, the rules
// and devices go too; it has no effect while there are sandboxes.
func (m *Manager) Shutdown(remove bool) error {
	m.mu.Lock()
	remove = remove && len(m.sandboxes) == 0
	list := m.bridged()
	m.mu.Unlock()
	var errs []error
	if m.watch != nil {
		errs = append(errs, m.watch.Close(remove))
	}
	if remove {
		errs = append(errs, m.table.Remove())
		for _, n := range list {
			if n.OwnDevice {
				errs = append(errs, m.removeBridge(n))
			}
		}
		// What a helper leaves that was killed; with no sandbox there is nothing in it.
		errs = append(errs, os.RemoveAll(filepath.Join(m.o.ExecRoot, wire.StateDir)))
	}
	return errors.Join(append(errs, m.release())...)
}

// release frees what the manager holds in this process.
func (m *Manager) release() error {
	var errs []error
	if m.watch != nil {
		errs = append(errs, m.watch.Close(false))
	}
	if m.pool != nil {
		errs = append(errs, m.pool.Close())
	}
	if m.back != nil {
		m.back.close()
	}
	if m.o.DataPlane != nil {
		errs = append(errs, m.o.DataPlane.Close())
	}
	m.mu.Lock()
	for _, b := range m.held {
		ports.CloseAll(b)
	}
	m.mu.Unlock()
	if m.table != nil {
		errs = append(errs, m.table.Close())
	}
	if m.nl != nil {
		errs = append(errs, m.nl.Close())
	}
	return errors.Join(errs...)
}
