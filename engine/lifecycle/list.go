package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
)

// List describes containers, newest first. InvalidArgument for a bad filter.
func (e *Engine) List(ctx context.Context, req container.ListRequest) ([]apicontainer.Summary, error) {
	f, err := e.newFilter(ctx, req)
	if err != nil {
		return nil, err
	}
	out := []apicontainer.Summary{}
	for _, u := range e.index.all() {
		if u.isWatched() && u.up() {
			e.refreshOwned(ctx, u)
		}
		if f.past(u) {
			break
		}
		ok, err := f.match(u)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		s, err := e.summary(ctx, u, req.Size)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
		if req.Limit > 0 && len(out) == req.Limit {
			break
		}
	}
	return out, nil
}

func (e *Engine) summary(ctx context.Context, u *unit, size bool) (apicontainer.Summary, error) {
	s, st := u.spec.Load(), u.status.Load()
	out := apicontainer.Summary{
		ID: string(s.ID), Names: []string{"/" + s.Name}, Image: s.Config.Image, ImageID: s.Image,
		ImageManifestDescriptor: s.Manifest, Command: commandLine(s), Created: s.Created.Unix(),
		Labels: s.Config.Labels, State: apicontainer.ContainerState(st.State), Status: u.statusLine(time.Now()),
		NetworkSettings: &apicontainer.NetworkSettingsSummary{Networks: e.networksOf(ctx, u)},
		Mounts:          MountPoints(s.Mounts), Ports: e.ports(ctx, u),
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.HostConfig.NetworkMode = string(s.HostConfig.NetworkMode)
	out.HostConfig.Annotations = s.HostConfig.Annotations
	if h := u.health(); h != nil {
		out.Health = &apicontainer.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	} else {
		out.Health = &apicontainer.HealthSummary{Status: apicontainer.NoHealthcheck}
	}
	if size {
		var err error
		if out.SizeRw, out.SizeRootFs, err = e.sizes(ctx, u); err != nil && !errdefs.IsNotFound(err) {
			return out, err
		}
	}
	return out, nil
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
func (e *Engine) ports(ctx context.Context, u *unit) []apicontainer.PortSummary {
	out := []apicontainer.PortSummary{}
	if !u.up() {
		return out
	}
	for p, bindings := range e.networkSettings(ctx, u).Ports {
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
func (u *unit) statusLine(now time.Time) string {
	st := u.status.Load()
	since := func(t time.Time) string { return units.HumanDuration(now.UTC().Sub(t)) }
	switch st.State {
	case container.StateRunning, container.StatePaused:
		line := "Up " + since(st.StartedAt)
		if st.State == container.StatePaused {
			return line + " (Paused)"
		}
		if h := u.health(); h != nil {
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

// filter is the parsed form of a list request.
type filter struct {
	e             *Engine
	ctx           context.Context //nolint:containedctx // of one list
	req           container.ListRequest
	f             map[string][]string
	before, since *unit
	ancestors     map[string]bool
	names         []*regexp.Regexp
	isTask        *bool
	seenBefore    bool
}

func (e *Engine) newFilter(ctx context.Context, req container.ListRequest) (*filter, error) {
	f := &filter{e: e, ctx: ctx, req: req, f: req.Filters}
	for name := range req.Filters {
		if !slices.Contains(listFilters(), name) {
			return nil, invalid("invalid filter '%s'", name)
		}
	}
	for _, v := range f.f["exited"] {
		if _, err := strconv.Atoi(v); err != nil {
			return nil, invalid("invalid filter 'exited=%s'", v)
		}
	}
	for _, v := range f.f["status"] {
		if err := apicontainer.ValidateContainerState(apicontainer.ContainerState(v)); err != nil {
			return nil, invalid("invalid filter 'status=%s'", v)
		}
		f.req.All = true
	}
	for _, v := range f.f["health"] {
		if err := apicontainer.ValidateHealthStatus(apicontainer.HealthStatus(v)); err != nil {
			return nil, invalid("invalid filter 'health=%s'", v)
		}
	}
	if len(f.f["exited"]) > 0 || f.req.Limit > 0 {
		f.req.All = true
	}
	return f, f.lookups()
}

func listFilters() []string {
	return []string{
		"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name", "network",
		"publish", "since", "status", "volume",
	}
}

func (f *filter) lookups() (err error) {
	for _, v := range f.f["before"] {
		if f.before, err = f.e.index.find(v); err != nil {
			return err
		}
		f.req.All = true
	}
	for _, v := range f.f["since"] {
		if f.since, err = f.e.index.find(v); err != nil {
			return err
		}
		f.req.All = true
	}
	for _, v := range f.f["name"] {
		re, err := regexp.Compile(v)
		if err != nil {
			return invalid("invalid filter 'name=%s': %v", v, err)
		}
		f.names = append(f.names, re)
	}
	for _, v := range f.f["is-task"] {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return invalid("invalid filter 'is-task=%s'", v)
		}
		f.isTask = &on
	}
	for _, field := range []string{"expose", "publish"} {
		for _, v := range f.f[field] {
			if _, err := apinetwork.ParsePortRange(v); err != nil {
				return invalid("invalid filter '%s=%s': %v", field, v, err)
			}
		}
	}
	if vs := f.f["ancestor"]; len(vs) > 0 {
		f.ancestors = map[string]bool{}
		for _, v := range vs {
			f.ancestors[v] = true
			if img, err := f.e.o.Images.Resolve(f.ctx, v, nil); err == nil {
				f.ancestors[img.ID.String()] = true
			}
		}
	}
	return nil
}

// past reports whether no older container can match.
func (f *filter) past(u *unit) bool { return f.since != nil && u == f.since }

func (f *filter) match(u *unit) (bool, error) {
	s, st := u.spec.Load(), u.status.Load()
	if f.before != nil && !f.seenBefore {
		f.seenBefore = u == f.before
		return false, nil
	}
	if !f.req.All && !isUp(st.State) {
		return false, nil
	}
	one := func(name string, ok func(string) bool) bool {
		return len(f.f[name]) == 0 || slices.ContainsFunc(f.f[name], ok)
	}
	healthWord := apicontainer.NoHealthcheck
	if h := u.health(); h != nil {
		healthWord = h.Status
	}
	return one("id", func(v string) bool { return strings.HasPrefix(string(s.ID), v) }) &&
		(len(f.names) == 0 || slices.ContainsFunc(f.names, func(re *regexp.Regexp) bool {
			return re.MatchString("/"+s.Name) || re.MatchString(s.Name)
		})) &&
		one("status", func(v string) bool { return v == string(st.State) }) &&
		one("exited", func(v string) bool {
			return v == strconv.Itoa(st.ExitCode) && !isUp(st.State) && st.State != container.StateCreated
		}) &&
		one("health", func(v string) bool { return v == string(healthWord) }) &&
		one("isolation", func(v string) bool { return v == string(s.HostConfig.Isolation) }) &&
		(f.ancestors == nil || f.ancestors[s.Image] || f.ancestors[s.Config.Image]) &&
		(f.isTask == nil || !*f.isTask) &&
		hasLabels(s.Config.Labels, f.f["label"]) && !hasAnyLabel(s.Config.Labels, f.f["label!"]) &&
		one("volume", func(v string) bool {
			return slices.ContainsFunc(s.Mounts, func(m container.Mount) bool { return m.Name == v || m.Source == v || m.Destination == v })
		}) &&
		one("network", func(v string) bool { return f.onNetwork(u, v) }) &&
		one("expose", func(v string) bool { return hasPort(s.Config.ExposedPorts, v) }) &&
		one("publish", func(v string) bool { return hasPort(s.HostConfig.PortBindings, v) }), nil
}

func hasPort[V any](ports map[apinetwork.Port]V, text string) bool {
	r, err := apinetwork.ParsePortRange(text)
	if err != nil {
		return false
	}
	for p := range r.All() {
		if _, ok := ports[p]; ok {
			return true
		}
	}
	return false
}

func (f *filter) onNetwork(u *unit, ref string) bool {
	for name, ep := range f.e.networksOf(f.ctx, u) {
		if name == ref || ep != nil && ep.NetworkID != "" && strings.HasPrefix(ep.NetworkID, ref) {
			return true
		}
	}
	return false
}

func hasLabel(labels map[string]string, want string) bool {
	k, v, exact := strings.Cut(want, "=")
	got, ok := labels[k]
	return ok && (!exact || got == v)
}

func hasLabels(labels map[string]string, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !hasLabel(labels, w) })
}

func hasAnyLabel(labels map[string]string, want []string) bool {
	return slices.ContainsFunc(want, func(w string) bool { return hasLabel(labels, w) })
}
