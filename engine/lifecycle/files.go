package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/network"
)

const loopbackHosts = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// etcFiles are the files in /etc that the engine writes, by their name in the
// container's directory.
func etcFiles() []string { return []string{"hosts", "hostname", "resolv.conf"} }

// writeFiles writes hosts, hostname and resolv.conf and returns their mounts.
func (e *Engine) writeFiles(u *unit, net opened) ([]specs.Mount, error) {
	s := u.spec.Load()
	dir := e.dir(u.id)
	if s.HostConfig.NetworkMode.IsContainer() {
		other, err := e.index.find(s.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		dir = e.dir(other.id)
	} else if err := e.writeEtc(s, net.sandbox); err != nil {
		return nil, fmt.Errorf("write files of the container: %w", err)
	}
	opts := []string{"rbind", "rprivate"}
	if s.HostConfig.ReadonlyRootfs {
		opts = append(opts, "ro")
	}
	var out []specs.Mount
	for _, name := range etcFiles() {
		out = append(out, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(dir, name), Options: opts,
		})
	}
	return out, nil
}

func (e *Engine) writeEtc(s *container.Spec, sb network.Sandbox) error {
	hosts, resolv, err := e.hosts(s, sb)
	if err != nil {
		return err
	}
	dir := e.dir(s.ID)
	return errors.Join(
		overwrite(filepath.Join(dir, "hosts"), hosts),
		overwrite(filepath.Join(dir, "resolv.conf"), resolv),
		overwrite(filepath.Join(dir, "hostname"), []byte(s.Config.Hostname+"\n")),
	)
}

// overwrite keeps the inode, which is mounted in the container.
func overwrite(path string, data []byte) error { return os.WriteFile(path, data, 0o644) }

// rewriteFiles brings the files of a running container up to date after its
// networks changed.
func (e *Engine) rewriteFiles(ctx context.Context, u *unit) error {
	s := u.spec.Load()
	sb, err := e.o.Sandboxes.Get(ctx, network.SandboxID(s.Sandbox))
	if err != nil {
		return err
	}
	return e.writeEtc(s, sb)
}

// hosts returns the contents of /etc/hosts and /etc/resolv.conf.
func (e *Engine) hosts(s *container.Spec, sb network.Sandbox) (hosts, resolv []byte, err error) {
	var b bytes.Buffer
	resolv = sb.ResolvConf
	if s.HostConfig.NetworkMode.IsHost() {
		host, err := os.ReadFile("/etc/hosts")
		if err != nil {
			host = []byte(loopbackHosts)
		}
		b.Write(host)
		if len(s.HostConfig.DNS)+len(s.HostConfig.DNSSearch)+len(s.HostConfig.DNSOptions) > 0 {
			resolv = resolvConf(s)
		} else {
			resolv, _ = os.ReadFile("/etc/resolv.conf")
		}
	} else {
		b.WriteString(loopbackHosts)
	}
	gateways := e.defaults.Load().HostGateway
	if len(gateways) == 0 {
		gateways = sb.HostGateway
	}
	for _, entry := range s.HostConfig.ExtraHosts {
		name, addr, _ := check.SplitHost(entry)
		addrs := []string{addr}
		if addr == "host-gateway" {
			if addrs = texts(gateways); len(addrs) == 0 {
				return nil, nil, invalid("unable to derive the IP value for host-gateway")
			}
		}
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	for _, line := range sb.Hosts {
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	links, err := e.linkHosts(s)
	if err != nil {
		return nil, nil, err
	}
	b.WriteString(links)
	return b.Bytes(), resolv, nil
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// resolvConf is for a container in the host's network with servers of its own.
func resolvConf(s *container.Spec) []byte {
	var b bytes.Buffer
	for _, a := range s.HostConfig.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(s.HostConfig.DNSSearch) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s.HostConfig.DNSSearch, " "))
	}
	if len(s.HostConfig.DNSOptions) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(s.HostConfig.DNSOptions, " "))
	}
	return b.Bytes()
}

// link is one legacy link of the default bridge.
type link struct {
	alias string
	unit  *unit
	ip    netip.Addr
}

// links resolves HostConfig.Links of a container on the default bridge. Conflict
// if a linked container does not run.
func (e *Engine) links(s *container.Spec) ([]link, error) {
	if !s.HostConfig.NetworkMode.IsBridge() {
		return nil, nil
	}
	var out []link
	for _, l := range s.HostConfig.Links {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		alias = alias[strings.LastIndexByte(alias, '/')+1:]
		u, err := e.index.find(name)
		if err != nil {
			return nil, invalid("could not get container for %s: %v", name, err)
		}
		sb, err := e.o.Sandboxes.Get(e.run, network.SandboxID(u.spec.Load().Sandbox))
		if err != nil || !u.up() {
			return nil, invalid("Cannot link to a non running container: /%s AS /%s/%s", u.name(), s.Name, alias)
		}
		for _, ep := range sb.Endpoints {
			if ep.Name == "bridge" && ep.Settings != nil {
				out = append(out, link{alias: alias, unit: u, ip: ep.Settings.IPAddress})
			}
		}
	}
	return out, nil
}

func (e *Engine) linkHosts(s *container.Spec) (string, error) {
	links, err := e.links(s)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, l := range links {
		names := []string{l.alias, l.unit.id.Short(), l.unit.name()}
		fmt.Fprintf(&b, "%s\t%s\n", l.ip, strings.Join(slices.Compact(names), " "))
	}
	return b.String(), nil
}

// linkEnv are the variables that links have set since the first of them.
func (e *Engine) linkEnv(s *container.Spec) ([]string, error) {
	links, err := e.links(s)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range links {
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		out = append(out, fmt.Sprintf("%s_NAME=/%s/%s", prefix, s.Name, l.alias))
		target := l.unit.spec.Load().Config
		first := true
		for p := range target.ExposedPorts {
			url := fmt.Sprintf("%s://%s:%d", p.Proto(), l.ip, p.Num())
			if first {
				out = append(out, prefix+"_PORT="+url)
				first = false
			}
			base := fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Num(), strings.ToUpper(string(p.Proto())))
			out = append(out, base+"="+url, fmt.Sprintf("%s_ADDR=%s", base, l.ip),
				fmt.Sprintf("%s_PORT=%d", base, p.Num()), fmt.Sprintf("%s_PROTO=%s", base, p.Proto()))
		}
		for _, kv := range target.Env {
			if !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "PATH=") {
				out = append(out, prefix+"_ENV_"+kv)
			}
		}
	}
	return out, nil
}
