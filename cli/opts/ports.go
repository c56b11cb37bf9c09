package opts

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Ports parses the values of --publish: [[IP:][HOST]:]CONTAINER[/PROTO] where
// HOST and CONTAINER are ports or ranges, or the long form
// target=80,published=8080,protocol=tcp. Every container port is exposed too.
func Ports(specs []string) (network.PortSet, network.PortMap, error) {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, s := range specs {
		if strings.Contains(s, "=") {
			var err error
			if s, err = longPort(s); err != nil {
				return nil, nil, err
			}
		}
		p, err := parsePublish(s)
		if err != nil {
			return nil, nil, err
		}
		for port, b := range p.bindings() {
			exposed[port] = struct{}{}
			bound[port] = append(bound[port], b)
		}
	}
	return exposed, bound, nil
}

// Expose parses a value of --expose: PORT[-PORT][/PROTO].
func Expose(s string) ([]network.Port, error) {
	if strings.Contains(s, ":") {
		return nil, invalidf("invalid port format for --expose: %s", s)
	}
	r, err := network.ParsePortRange(s)
	if err != nil {
		return nil, invalidf("invalid range format for --expose: %v", err)
	}
	if err := validProto(string(r.Proto())); err != nil {
		return nil, err
	}
	var ports []network.Port
	for p := range r.All() {
		ports = append(ports, p)
	}
	return ports, nil
}

// publish is one parsed value: equal ranges, or a host range for one port.
type publish struct {
	ip        netip.Addr
	container network.PortRange
	host      network.PortRange // zero: any port
}

func (p publish) bindings() func(func(network.Port, network.PortBinding) bool) {
	return func(yield func(network.Port, network.PortBinding) bool) {
		single := p.container.Start() == p.container.End()
		for port := range p.container.All() {
			b := network.PortBinding{HostIP: p.ip}
			switch {
			case !p.host.IsValid():
			case single && p.host.Start() != p.host.End():
				b.HostPort = fmt.Sprintf("%d-%d", p.host.Start(), p.host.End())
			default:
				b.HostPort = strconv.Itoa(int(p.host.Start()) + int(port.Num()) - int(p.container.Start()))
			}
			if !yield(port, b) {
				return
			}
		}
	}
}

func parsePublish(s string) (publish, error) {
	var p publish
	if s == "" {
		return p, invalidf("no port specified: %s<empty>", s)
	}
	ip, host, ctr, err := splitPublish(s)
	if err != nil {
		return p, err
	}
	ctr, proto, _ := strings.Cut(ctr, "/")
	if proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if ctr == "" {
		return p, invalidf("no port specified: %s<empty>", s)
	}
	if err := validProto(proto); err != nil {
		return p, err
	}
	if p.container, err = network.ParsePortRange(ctr + "/" + proto); err != nil {
		return p, invalidf("invalid containerPort: %s", ctr)
	}
	if host != "" {
		if p.host, err = network.ParsePortRange(host + "/" + proto); err != nil {
			return p, invalidf("invalid hostPort: %s", host)
		}
		c, h := p.container.End()-p.container.Start(), p.host.End()-p.host.Start()
		if c != h && c != 0 {
			return p, invalidf("invalid ranges specified for container and host Ports: %s and %s", ctr, host)
		}
	}
	if ip != "" {
		if p.ip, err = netip.ParseAddr(ip); err != nil {
			return p, invalidf("invalid IP address: %s", ip)
		}
	}
	return p, nil
}

// splitPublish cuts at colons, the address being in brackets if it has any.
func splitPublish(s string) (ip, host, ctr string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		addr, after, _ := strings.Cut(rest, "]:")
		host, ctr, ok := strings.Cut(after, ":")
		if !ok {
			return "", "", "", invalidf("invalid IP address: %s", s)
		}
		return addr, host, ctr, nil
	}
	parts := strings.Split(s, ":")
	switch n := len(parts); n {
	case 1:
		return "", "", parts[0], nil
	case 2:
		return "", parts[0], parts[1], nil
	case 3:
		return parts[0], parts[1], parts[2], nil
	default: // an IPv6 address without brackets
		return strings.Join(parts[:n-2], ":"), parts[n-2], parts[n-1], nil
	}
}

func longPort(s string) (string, error) {
	var target, published, proto string
	for _, field := range strings.Split(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || v == "" {
			return "", invalidf("invalid publish opts format (should be name=value but got '%s')", field)
		}
		switch k {
		case "target":
			target = v
		case "published":
			published = v
		case "protocol":
			proto = "/" + v
		case "mode":
		default:
			return "", invalidf("invalid field key %s", k)
		}
	}
	return published + ":" + target + proto, nil
}

func validProto(p string) error {
	switch p {
	case "tcp", "udp", "sctp":
		return nil
	}
	return invalidf("invalid proto: %s", p)
}
