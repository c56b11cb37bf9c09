package lifecycle

import (
	"context"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/network"
)

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
	return netconfig.FileMounts(dir, s.HostConfig.ReadonlyRootfs), nil
}

// writeEtc writes the container's files in /etc.
func (e *Engine) writeEtc(s *container.Spec, sb network.Sandbox) error {
	links, err := e.links(s)
	if err != nil {
		return err
	}
	f := netconfig.Files{Container: s, Sandbox: sb, HostGateway: e.defaults.Load().HostGateway, Links: links}
	return f.Write(e.dir(s.ID))
}

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

// links resolves HostConfig.Links of a container on the default bridge. Conflict
// if a linked container does not run.
func (e *Engine) links(s *container.Spec) ([]netconfig.Link, error) {
	if !s.HostConfig.NetworkMode.IsBridge() {
		return nil, nil
	}
	var out []netconfig.Link
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
				out = append(out, netconfig.Link{Alias: alias, To: u.spec.Load(), IP: ep.Settings.IPAddress})
			}
		}
	}
	return out, nil
}

// linkEnv are the variables that a container's links set.
func (e *Engine) linkEnv(s *container.Spec) ([]string, error) {
	links, err := e.links(s)
	if err != nil {
		return nil, err
	}
	return netconfig.LinkEnv(s, links), nil
}
