package describe

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
)

// Summary is a container's entry in a list.
func (c *Container) Summary() apicontainer.Summary {
	s := c.Spec
	out := apicontainer.Summary{
		ID: string(s.ID), Names: []string{"/" + s.Name}, Image: s.Config.Image, ImageID: s.Image,
		ImageManifestDescriptor: s.Manifest, Command: commandLine(s), Created: s.Created.Unix(),
		Labels: s.Config.Labels, State: apicontainer.ContainerState(c.Status.State), Status: c.statusLine(time.Now()),
		NetworkSettings: &apicontainer.NetworkSettingsSummary{Networks: c.networks()},
		Mounts:          mountPoints(s.Mounts), Ports: c.ports(),
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.HostConfig.NetworkMode = string(s.HostConfig.NetworkMode)
	out.HostConfig.Annotations = s.HostConfig.Annotations
	if h := c.Health; h != nil {
		out.Health = &apicontainer.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	} else {
		out.Health = &apicontainer.HealthSummary{Status: apicontainer.NoHealthcheck}
	}
	return out
}

func commandLine(s *container.Spec) string {
	var parts []string
	for _, a := range slices.Concat(s.Config.Entrypoint, s.Config.Cmd) {
		if strings.ContainsAny(a, " ") {
			a = "'" + a + "'"
		}
		parts = append(parts, a)
	}
	return strings.Join(parts, " ")
}

// ports lists published and exposed ports of a running container.
func (c *Container) ports() []apicontainer.PortSummary {
	out := []apicontainer.PortSummary{}
	if !c.Status.State.Up() {
		return out
	}
	for p, bindings := range c.networkSettings().Ports {
		if len(bindings) == 0 {
			out = append(out, apicontainer.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			public, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			ip := b.HostIP
			if !ip.IsValid() {
				ip = netip.IPv4Unspecified()
			}
			out = append(out, apicontainer.PortSummary{IP: ip, PrivatePort: p.Num(), PublicPort: uint16(public), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b apicontainer.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		return strings.Compare(a.Type+a.IP.String(), b.Type+b.IP.String())
	})
	return out
}

// statusLine is the sentence of ps.
func (c *Container) statusLine(now time.Time) string {
	st := c.Status
	since := func(t time.Time) string { return units.HumanDuration(now.UTC().Sub(t)) }
	switch st.State {
	case container.StateRunning, container.StatePaused:
		line := "Up " + since(st.StartedAt)
		if st.State == container.StatePaused {
			return line + " (Paused)"
		}
		if h := c.Health; h != nil {
			word := string(h.Status)
			if h.Status == apicontainer.Starting {
				word = "health: starting"
			}
			line += " (" + word + ")"
		}
		return line
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", st.ExitCode, since(st.FinishedAt))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateCreated:
		return "Created"
	}
	if st.FinishedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", st.ExitCode, since(st.FinishedAt))
}
