package route

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Filters are the values given for each filter of a list or prune request.
// Values of one filter are alternatives; different filters must all hold.
type Filters map[string][]string

// ParseFilters decodes the `filters` parameter, {"name":["value"]} or the older
// {"name":{"value":true}}. allowed names the filters the endpoint knows; none
// means any. InvalidArgument.
func ParseFilters(r *http.Request, allowed ...string) (Filters, error) {
	f, err := DecodeFilters(r.FormValue("filters"))
	if err != nil {
		return nil, err
	}
	for name := range f {
		if len(allowed) > 0 && !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("invalid filter '%s': %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return f, nil
}

// DecodeFilters is ParseFilters for the parameter's text.
func DecodeFilters(s string) (Filters, error) {
	if s == "" {
		return Filters{}, nil
	}
	old := map[string]map[string]bool{}
	f := Filters{}
	if err := json.Unmarshal([]byte(s), &old); err == nil {
		for name, values := range old {
			for v, on := range values {
				if on {
					f[name] = append(f[name], v)
				}
			}
			slices.Sort(f[name])
		}
		return f, nil
	}
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, fmt.Errorf("invalid filter: %v: %w", err, errdefs.ErrInvalidArgument)
	}
	return f, nil
}

// Has reports whether the filter was given.
func (f Filters) Has(name string) bool { return len(f[name]) > 0 }

// Exact reports whether the filter was not given or one of its values is v.
func (f Filters) Exact(name, v string) bool {
	return !f.Has(name) || slices.Contains(f[name], v)
}

// Func reports whether the filter was not given or match holds for one of its values.
func (f Filters) Func(name string, match func(value string) bool) bool {
	return !f.Has(name) || slices.ContainsFunc(f[name], match)
}

// Labels reports whether every "key" or "key=value" of the filter holds for labels.
func (f Filters) Labels(name string, labels map[string]string) bool {
	for _, want := range f[name] {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return true
}

// NoLabels reports whether none of the filter's labels holds ("label!").
func (f Filters) NoLabels(name string, labels map[string]string) bool {
	return !slices.ContainsFunc(f[name], func(l string) bool { return hasLabel(labels, l) })
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!hasValue || got == value)
}

// Bool reads a filter that takes one boolean. InvalidArgument.
func (f Filters) Bool(name string, def bool) (bool, error) {
	if !f.Has(name) {
		return def, nil
	}
	isTrue := slices.Contains(f[name], "1") || slices.Contains(f[name], "true")
	isFalse := slices.Contains(f[name], "0") || slices.Contains(f[name], "false")
	if isTrue == isFalse {
		return def, fmt.Errorf("invalid filter '%s=%s': %w", name, f[name], errdefs.ErrInvalidArgument)
	}
	return isTrue, nil
}

// Until reads the `until` filter: a point in time, or a duration before now.
// Zero if it was not given. InvalidArgument.
func (f Filters) Until(now time.Time) (time.Time, error) {
	switch len(f["until"]) {
	case 0:
		return time.Time{}, nil
	case 1:
		t, err := ParseTime(f["until"][0], now)
		if err != nil {
			return time.Time{}, fmt.Errorf("invalid value for \"until\" filter: %w", err)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("more than one until filter specified: %w", errdefs.ErrInvalidArgument)
}
