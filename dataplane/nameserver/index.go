// Package nameserver answers the questions of containers at 127.0.0.11: names
// of containers in the networks they share, and everything else by asking the
// servers of the host. It owns no socket's creation and persists nothing.
package nameserver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/wherry-engine/wherry/dataplane/wire"
)

// Index knows the names of all sandboxes. It is safe for concurrent use.
type Index struct {
	mu        sync.RWMutex
	sandboxes map[string]wire.Sandbox
	networks  map[string]*netIndex // by ID
}

// netIndex is the names of one network.
type netIndex struct {
	name    string
	members int
	names   map[string][]member
	addrs   map[netip.Addr]string // name for reverse look-ups
}

// member is a sandbox in a network.
type member struct {
	sandbox string
	v4, v6  netip.Addr
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{sandboxes: map[string]wire.Sandbox{}, networks: map[string]*netIndex{}}
}

// Put makes or replaces a sandbox.
func (x *Index) Put(s wire.Sandbox) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(s.ID)
	x.sandboxes[s.ID] = s
	for _, e := range s.Endpoints {
		if e.NoNames {
			continue
		}
		n := x.networks[e.Network]
		if n == nil {
			n = &netIndex{names: map[string][]member{}, addrs: map[netip.Addr]string{}}
			x.networks[e.Network] = n
		}
		n.name = strings.ToLower(e.NetworkName)
		n.members++
		for _, name := range e.Names {
			name = strings.ToLower(name)
			n.names[name] = append(n.names[name], member{s.ID, e.IPv4, e.IPv6})
		}
		for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
			if a.IsValid() && len(e.Names) > 0 {
				n.addrs[a] = e.Names[0] + "." + e.NetworkName
			}
		}
	}
}

// Drop forgets a sandbox.
func (x *Index) Drop(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(id)
}

func (x *Index) drop(id string) {
	s, ok := x.sandboxes[id]
	if !ok {
		return
	}
	delete(x.sandboxes, id)
	for _, e := range s.Endpoints {
		n := x.networks[e.Network]
		if n == nil || e.NoNames {
			continue
		}
		for _, name := range e.Names {
			name = strings.ToLower(name)
			n.names[name] = slices.DeleteFunc(n.names[name], func(m member) bool { return m.sandbox == id })
			if len(n.names[name]) == 0 {
				delete(n.names, name)
			}
		}
		delete(n.addrs, e.IPv4)
		delete(n.addrs, e.IPv6)
		if n.members--; n.members == 0 {
			delete(x.networks, e.Network)
		}
	}
}

// dns returns how a sandbox's other questions are answered.
func (x *Index) dns(id string) (d wire.DNS, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s, ok := x.sandboxes[id]
	if !ok || s.DNS == nil {
		return wire.DNS{}, false
	}
	return *s.DNS, true
}

// lookup finds a name as a sandbox sees it; known tells that the name exists,
// be it without an address of the family. Several addresses come in random order.
func (x *Index) lookup(id, name string, v6 bool) (addrs []netip.Addr, known bool) {
	name = strings.ToLower(name)
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, e := range x.sandboxes[id].Endpoints {
		n := x.networks[e.Network]
		if n == nil || e.NoNames {
			continue
		}
		found := n.find(name, e.Links)
		if found == nil {
			continue
		}
		for _, m := range found {
			a := m.v4
			if v6 {
				a = m.v6
			}
			if a.IsValid() {
				addrs = append(addrs, a)
			}
		}
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		return addrs, true
	}
	return nil, false
}

// find resolves a name, or name.network.
func (n *netIndex) find(name string, links map[string]string) []member {
	for alias, target := range links {
		if strings.EqualFold(alias, name) {
			if found := n.names[strings.ToLower(target)]; found != nil {
				return found
			}
		}
	}
	if found := n.names[name]; found != nil {
		return found
	}
	if short, ok := strings.CutSuffix(name, "."+n.name); ok {
		return n.names[short]
	}
	return nil
}

// reverse finds the name of an address in the networks of a sandbox.
func (x *Index) reverse(id string, a netip.Addr) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, e := range x.sandboxes[id].Endpoints {
		if n := x.networks[e.Network]; n != nil && !e.NoNames {
			if name := n.addrs[a]; name != "" {
				return name
			}
		}
	}
	return ""
}
