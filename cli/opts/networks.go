package opts

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Attachment is one network that a container joins.
type Attachment struct {
	Target       string
	Aliases      []string
	DriverOpts   map[string]string
	Links        []string
	IPv4, IPv6   netip.Addr
	LinkLocalIPs []netip.Addr
	MAC          string
	GwPriority   int
}

// Networks is the flag --network: a name, or name=…,alias=…,ip=….
type Networks []Attachment

// Type is the word that help shows.
func (*Networks) Type() string { return "network" }

// String shows the names.
func (n *Networks) String() string {
	var names []string
	for _, a := range *n {
		names = append(names, a.Target)
	}
	return strings.Join(names, ",")
}

// Set parses one value.
func (n *Networks) Set(v string) error {
	if !strings.Contains(v, "=") {
		*n = append(*n, Attachment{Target: v})
		return nil
	}
	var a Attachment
	fields, err := Fields(v)
	if err != nil {
		return err
	}
	for _, f := range fields {
		key, val, ok := strings.Cut(f, "=")
		if !ok || val == "" {
			return invalidf("invalid field %s: must be key=value", f)
		}
		if err := a.set(strings.TrimSpace(strings.ToLower(key)), strings.TrimSpace(val)); err != nil {
			return err
		}
	}
	if a.Target == "" {
		return invalidf("network name/id is not specified")
	}
	*n = append(*n, a)
	return nil
}

func (a *Attachment) set(key, val string) (err error) {
	switch key {
	case "name":
		a.Target = val
	case "alias":
		a.Aliases = append(a.Aliases, val)
	case "driver-opt":
		k, v, ok := strings.Cut(val, "=")
		if !ok {
			return invalidf("invalid key value pair format in driver options")
		}
		setPair(&a.DriverOpts, strings.ToLower(k)+"="+strings.ToLower(v))
	case "ip":
		a.IPv4, err = netip.ParseAddr(val)
	case "ip6":
		a.IPv6, err = netip.ParseAddr(val)
	case "mac-address":
		a.MAC = val
	case "link-local-ip":
		var ip netip.Addr
		ip, err = netip.ParseAddr(val)
		a.LinkLocalIPs = append(a.LinkLocalIPs, ip)
	case "gw-priority":
		a.GwPriority, err = strconv.Atoi(val)
	default:
		return invalidf("invalid field key %s", key)
	}
	if err != nil {
		return invalidf("invalid %s %q", key, val)
	}
	return nil
}

// Endpoint turns the attachment into the API's form.
func (a Attachment) Endpoint() (*network.EndpointSettings, error) {
	e := &network.EndpointSettings{
		Aliases: a.Aliases, Links: a.Links, DriverOpts: a.DriverOpts, GwPriority: a.GwPriority,
	}
	if a.IPv4.IsValid() || a.IPv6.IsValid() || len(a.LinkLocalIPs) > 0 {
		e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a.IPv4, IPv6Address: a.IPv6, LinkLocalIPs: a.LinkLocalIPs}
	}
	if a.MAC != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(a.MAC))
		if err != nil {
			return nil, invalidf("%s is not a valid mac address", a.MAC)
		}
		e.MacAddress = network.HardwareAddr(mac)
	}
	return e, nil
}

// Addr is an IP address flag.
type Addr struct{ netip.Addr }

// Set parses v.
func (a *Addr) Set(v string) (err error) {
	if v == "" {
		a.Addr = netip.Addr{}
		return nil
	}
	if a.Addr, err = netip.ParseAddr(v); err != nil {
		return invalidf("failed to parse IP: %q", v)
	}
	return nil
}

// Type is the word that help shows.
func (*Addr) Type() string { return "string" }

// String shows the address, "" for none.
func (a *Addr) String() string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr.String()
}
