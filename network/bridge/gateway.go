package bridge

import (
	"net/netip"
	"strings"

	"github.com/wherry-engine/wherry/network/rtnl"
)

// better reports whether a comes before b as the way out: by priority, then
// by the network's name.
func (e *endpoint) better(than *endpoint) bool {
	if than == nil {
		return true
	}
	if a, b := e.Settings.GwPriority, than.Settings.GwPriority; a != b {
		return a > b
	}
	return strings.Compare(e.Network, than.Network) < 0
}

// gateways returns the endpoints that provide the default routes; nil if none does.
func (s *sandbox) gateways() (v4, v6 *endpoint) {
	for _, e := range s.Endpoints {
		if e.Gateway4.IsValid() && e.better(v4) {
			v4 = e
		}
		if e.Gateway6.IsValid() && e.better(v6) {
			v6 = e
		}
	}
	return v4, v6
}

// insideIndex is the index of the interface in the sandbox.
func (e *endpoint) insideIndex(link *rtnl.Conn) (int, error) {
	if e.inside > 0 {
		return e.inside, nil
	}
	l, err := link.LinkByName(e.Ifname)
	return l.Index, err
}

// defaultRoutes sets the default routes of a sandbox. old is what they were
// before, for routes that no endpoint provides any more.
func (m *Manager) defaultRoutes(link *rtnl.Conn, s *sandbox, old []netip.Addr) error {
	m.mu.Lock()
	v4, v6 := s.gateways()
	m.mu.Unlock()
	var b rtnl.Batch
	for _, way := range []struct {
		e   *endpoint
		via func(*endpoint) netip.Addr
	}{
		{v4, func(e *endpoint) netip.Addr { return e.Gateway4 }},
		{v6, func(e *endpoint) netip.Addr { return e.Gateway6 }},
	} {
		if way.e == nil {
			continue
		}
		index, err := way.e.insideIndex(link)
		if err != nil {
			return err
		}
		b.AddRoute(rtnl.Route{Via: way.via(way.e), Link: index})
	}
	for _, via := range old {
		if v4 == nil && via.Is4() || v6 == nil && via.Is6() {
			var gone rtnl.Batch
			gone.DelRoute(rtnl.Route{Via: via})
			_ = link.Do(&gone) // it went with its link
		}
	}
	return link.Do(&b)
}
