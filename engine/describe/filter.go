package describe

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
)

// Filter is the parsed form of a list request, for one pass over all containers
// from the newest to the oldest.
type Filter struct {
	req           container.ListRequest
	f             map[string][]string
	before, since container.ID
	ancestors     map[string]bool
	names         []*regexp.Regexp
	isTask        *bool
	seenBefore    bool
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Lookup resolves what filters name.
type Lookup struct {
	Container func(ref string) (container.ID, error)
	Image     func(ref string) (id string, err error)
}

// NewFilter parses a request. InvalidArgument, NotFound (containers to compare with).
func NewFilter(req container.ListRequest, find Lookup) (*Filter, error) {
	f := &Filter{req: req, f: req.Filters}
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
	return f, f.lookup(find)
}

func listFilters() []string {
	return []string{
		"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name", "network",
		"publish", "since", "status", "volume",
	}
}

func (f *Filter) lookup(find Lookup) (err error) {
	for _, v := range f.f["before"] {
		if f.before, err = find.Container(v); err != nil {
			return err
		}
		f.req.All = true
	}
	for _, v := range f.f["since"] {
		if f.since, err = find.Container(v); err != nil {
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
			if id, err := find.Image(v); err == nil {
				f.ancestors[id] = true
			}
		}
	}
	return nil
}

// Past reports whether neither this container nor an older one can match.
func (f *Filter) Past(id container.ID) bool { return f.since != "" && id == f.since }

// Match reports whether a container is wanted.
func (f *Filter) Match(c *Container) bool {
	s, st := c.Spec, c.Status
	if f.before != "" && !f.seenBefore {
		f.seenBefore = s.ID == f.before
		return false
	}
	if !f.req.All && !st.State.Up() {
		return false
	}
	one := func(name string, ok func(string) bool) bool {
		return len(f.f[name]) == 0 || slices.ContainsFunc(f.f[name], ok)
	}
	healthWord := apicontainer.NoHealthcheck
	if h := c.Health; h != nil {
		healthWord = h.Status
	}
	return one("id", func(v string) bool { return strings.HasPrefix(string(s.ID), v) }) &&
		(len(f.names) == 0 || slices.ContainsFunc(f.names, func(re *regexp.Regexp) bool {
			return re.MatchString("/"+s.Name) || re.MatchString(s.Name)
		})) &&
		one("status", func(v string) bool { return v == string(st.State) }) &&
		one("exited", func(v string) bool {
			return v == strconv.Itoa(st.ExitCode) && !st.State.Up() && st.State != container.StateCreated
		}) &&
		one("health", func(v string) bool { return v == string(healthWord) }) &&
		one("isolation", func(v string) bool { return v == string(s.HostConfig.Isolation) }) &&
		(f.ancestors == nil || f.ancestors[s.Image] || f.ancestors[s.Config.Image]) &&
		(f.isTask == nil || !*f.isTask) &&
		Labelled(s, f.f) &&
		one("volume", func(v string) bool {
			return slices.ContainsFunc(s.Mounts, func(m container.Mount) bool { return m.Name == v || m.Source == v || m.Destination == v })
		}) &&
		one("network", func(v string) bool { return c.onNetwork(v) }) &&
		one("expose", func(v string) bool { return hasPort(s.Config.ExposedPorts, v) }) &&
		one("publish", func(v string) bool { return hasPort(s.HostConfig.PortBindings, v) })
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

func (c *Container) onNetwork(ref string) bool {
	for name, ep := range c.networks() {
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

// Labelled reports whether a container has all labels that the filter "label"
// names, and none of those of "label!".
func Labelled(s *container.Spec, filters map[string][]string) bool {
	has := func(w string) bool { return hasLabel(s.Config.Labels, w) }
	return !slices.ContainsFunc(filters["label"], func(w string) bool { return !has(w) }) &&
		!slices.ContainsFunc(filters["label!"], has)
}
