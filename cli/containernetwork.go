package cli

import (
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/cli/opts"
)

// networking merges --ip, --network-alias and the like into the first network
// and sets the network mode.
func (c *containerFlags) networking(host *container.HostConfig) (*network.NetworkingConfig, error) {
	nets := append(opts.Networks(nil), c.networks...)
	if len(nets) == 0 {
		nets = opts.Networks{{Target: "default"}}
	}
	if err := c.firstNetwork(&nets[0]); err != nil {
		return nil, err
	}
	host.NetworkMode = container.NetworkMode(nets[0].Target)
	host.Links = c.links
	out := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	for i, n := range nets {
		mode := container.NetworkMode(n.Target)
		if len(nets) > 1 && (mode.IsHost() || mode.IsContainer() || mode.IsNone()) {
			return nil, invalidf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if _, twice := out.EndpointsConfig[n.Target]; twice {
			return nil, invalidf("network %q is specified multiple times", n.Target)
		}
		if i == 0 && mode.IsUserDefined() {
			n.Links = c.links
		}
		ep, err := n.Endpoint()
		if err != nil {
			return nil, err
		}
		if len(nets) == 1 && len(c.networks) == 0 && n.MAC == "" && ep.IPAMConfig == nil && len(n.Aliases) == 0 {
			return out, nil
		}
		out.EndpointsConfig[n.Target] = ep
	}
	return out, nil
}

func (c *containerFlags) firstNetwork(n *opts.Attachment) error {
	conflict := func(flag, per string) error {
		return invalidf("conflicting options: cannot specify both --%s and per-network %s", flag, per)
	}
	switch {
	case len(c.aliases) > 0 && len(n.Aliases) > 0:
		return conflict("network-alias", "alias")
	case c.ip.IsValid() && n.IPv4.IsValid():
		return conflict("ip", "IPv4 address")
	case c.ip6.IsValid() && n.IPv6.IsValid():
		return conflict("ip6", "IPv6 address")
	case c.mac != "" && n.MAC != "":
		return conflict("mac-address", "MAC address")
	case len(c.linkLocal) > 0 && len(n.LinkLocalIPs) > 0:
		return conflict("link-local-ip", "link-local IP addresses")
	}
	mode := container.NetworkMode(n.Target)
	if len(c.aliases) > 0 && !mode.IsUserDefined() {
		return invalidf("network-scoped aliases are only supported for user-defined networks")
	}
	n.Aliases = append(n.Aliases, c.aliases...)
	if c.ip.IsValid() {
		n.IPv4 = c.ip.Addr
	}
	if c.ip6.IsValid() {
		n.IPv6 = c.ip6.Addr
	}
	if c.mac != "" {
		n.MAC = c.mac
	}
	for _, s := range c.linkLocal {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return err
		}
		n.LinkLocalIPs = append(n.LinkLocalIPs, ip)
	}
	return nil
}
