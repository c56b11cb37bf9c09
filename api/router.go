package api

import (
	"strings"

	"github.com/wherry-engine/wherry/api/route"
)

// Route is one row of the table.
type Route struct {
	Method string
	// Path is a pattern of segments: literal, {name} for one segment, or
	// {name:.*} for any number of them, slashes included.
	Path string
	// Min is the API version that introduced the route; empty means always.
	Min string
	// Handler answers it; nil answers 501.
	Handler route.Handler
}

// segment of a compiled pattern.
type segment struct {
	literal  string
	variable string
	rest     bool // {name:.*}
}

type compiled struct {
	Route
	segments []segment
}

// router finds the first route of the table that fits.
type router struct {
	// byHead holds the routes by method and first segment; those whose first
	// segment is a variable are under "".
	byHead map[string][]compiled
}

func newRouter(routes []Route) *router {
	rt := &router{byHead: make(map[string][]compiled)}
	for _, r := range routes {
		c := compiled{Route: r, segments: compilePattern(r.Path)}
		key := r.Method + " " + c.segments[0].literal
		rt.byHead[key] = append(rt.byHead[key], c)
	}
	return rt
}

func compilePattern(path string) []segment {
	var segs []segment
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		name, isVar := strings.CutPrefix(part, "{")
		if !isVar {
			segs = append(segs, segment{literal: part})
			continue
		}
		name = strings.TrimSuffix(name, "}")
		name, rest := strings.CutSuffix(name, ":.*")
		segs = append(segs, segment{variable: name, rest: rest})
	}
	return segs
}

// find returns the route for the path without its version, and its variables.
func (rt *router) find(method, path string) (*Route, map[string]string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	vars := make(map[string]string, 2)
	for _, head := range []string{parts[0], ""} {
		candidates := rt.byHead[method+" "+head]
		for i := range candidates {
			if matchSegments(candidates[i].segments, parts, vars) {
				return &candidates[i].Route, vars
			}
			clear(vars)
		}
	}
	return nil, nil
}

func matchSegments(segs []segment, parts []string, vars map[string]string) bool {
	for i, s := range segs {
		if s.rest {
			return matchRest(s, segs[i+1:], parts[i:], vars)
		}
		if i >= len(parts) {
			return false
		}
		if s.variable == "" && s.literal != parts[i] || s.variable != "" && parts[i] == "" {
			return false
		}
		if s.variable != "" {
			vars[s.variable] = parts[i]
		}
	}
	return len(parts) == len(segs)
}

// matchRest gives the variable as many parts as the segments after it leave.
func matchRest(s segment, after []segment, parts []string, vars map[string]string) bool {
	n := len(parts) - len(after)
	if n < 1 || parts[0] == "" || !matchSegments(after, parts[n:], vars) {
		return false
	}
	vars[s.variable] = strings.Join(parts[:n], "/")
	return true
}

// splitVersion separates the "/v1.44" prefix. The version is "" if there is none.
func splitVersion(path string) (version, rest string) {
	v, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return "", path
	}
	end := strings.IndexByte(v, '/')
	if end <= 0 || strings.Trim(v[:end], "0123456789.") != "" {
		return "", path
	}
	return v[:end], v[end:]
}
