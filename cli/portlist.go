package cli

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// portText is the PORTS column: exposed and published ports, neighbours joined
// to ranges where the host's port is the container's.
func portText(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b container.PortSummary) int {
		switch {
		case a.PrivatePort != b.PrivatePort:
			return int(a.PrivatePort) - int(b.PrivatePort)
		case a.IP != b.IP:
			return strings.Compare(ipText(a), ipText(b))
		case a.PublicPort != b.PublicPort:
			return int(a.PublicPort) - int(b.PublicPort)
		}
		return strings.Compare(a.Type, b.Type)
	})
	var keys []string
	open := map[string]*portRun{}
	var done, shifted []string
	for _, p := range ports {
		key := p.Type
		if ip := ipText(p); ip != "" {
			if p.PublicPort != p.PrivatePort {
				shifted = append(shifted, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			key = ip + "/" + p.Type
		}
		run := open[key]
		switch {
		case run == nil:
			keys = append(keys, key)
		case p.PrivatePort == run.last+1:
			run.last = p.PrivatePort
			continue
		default:
			done = append(done, run.text(key))
		}
		open[key] = &portRun{p.PrivatePort, p.PrivatePort}
	}
	for _, k := range keys {
		done = append(done, open[k].text(k))
	}
	return strings.Join(append(done, shifted...), ", ")
}

type portRun struct{ first, last uint16 }

func (r portRun) text(key string) string {
	span := strconv.Itoa(int(r.first))
	if r.last != r.first {
		span += "-" + strconv.Itoa(int(r.last))
	}
	ip, proto, published := strings.Cut(key, "/")
	if !published {
		return span + "/" + key
	}
	return net.JoinHostPort(ip, span) + "->" + span + "/" + proto
}

func ipText(p container.PortSummary) string {
	if !p.IP.IsValid() {
		return ""
	}
	return p.IP.String()
}
