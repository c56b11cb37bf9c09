package netconfig

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
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

// Files is what the files in /etc say.
type Files struct {
	Container *container.Spec
	Sandbox   network.Sandbox // zero without one of its own
	// HostGateway is what host-gateway stands for; default: the sandbox's answer.
	HostGateway []netip.Addr
	Links       []Link
}

// Write writes the files to the container's directory. InvalidArgument.
func (f Files) Write(dir string) error {
	s := f.Container
	hosts, resolv, err := f.contents()
	if err != nil {
		return err
	}
	return errors.Join(
		overwrite(filepath.Join(dir, "hosts"), hosts),
		overwrite(filepath.Join(dir, "resolv.conf"), resolv),
		overwrite(filepath.Join(dir, "hostname"), []byte(s.Config.Hostname+"\n")),
	)
}

// FileMounts are the mounts of the files in the directory of the container, or
// of the container whose network it joins.
func FileMounts(dir string, readonly bool) []specs.Mount {
	opts := []string{"rbind", "rprivate"}
	if readonly {
		opts = append(opts, "ro")
	}
	var out []specs.Mount
	for _, name := range etcFiles() {
		out = append(out, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(dir, name), Options: opts,
		})
	}
	return out
}

// overwrite keeps the inode, which is mounted in the container.
func overwrite(path string, data []byte) error { return os.WriteFile(path, data, 0o644) }

// contents returns those of /etc/hosts and /etc/resolv.conf.
func (f Files) contents() (hosts, resolv []byte, err error) {
	s, sb := f.Container, f.Sandbox
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
	gateways := f.HostGateway
	if len(gateways) == 0 {
		gateways = sb.HostGateway
	}
	for _, entry := range s.HostConfig.ExtraHosts {
		name, addr, _ := check.SplitHost(entry)
		addrs := []string{addr}
		if addr == "host-gateway" {
			if addrs = texts(gateways); len(addrs) == 0 {
				return nil, nil, errdefs.ErrInvalidArgument.WithMessage("unable to derive the IP value for host-gateway")
			}
		}
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	for _, line := range sb.Hosts {
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	b.WriteString(linkHosts(f.Links))
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
