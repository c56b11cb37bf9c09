package opts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// Security prepares the values of --security-opt for the API: a seccomp
// profile named by path is read and sent as JSON. unconfinedPaths reports
// systempaths=unconfined, which is a setting of its own there.
func Security(specs []string) (out []string, unconfinedPaths bool, err error) {
	for _, s := range specs {
		key, val, ok := strings.Cut(s, "=")
		if !ok && key != "no-new-privileges" {
			if key, val, ok = strings.Cut(s, ":"); !ok {
				return nil, false, invalidf("invalid --security-opt: %q", s)
			}
		}
		switch {
		case key == "systempaths" && val == "unconfined":
			unconfinedPaths = true
			continue
		case key == "seccomp" && val != "unconfined" && val != "builtin":
			profile, err := seccompProfile(val)
			if err != nil {
				return nil, false, err
			}
			s = "seccomp=" + profile
		}
		out = append(out, s)
	}
	return out, unconfinedPaths, nil
}

func seccompProfile(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", path, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", path, err)
	}
	return b.String(), nil
}

// Capabilities gives names their usual form and order: ALL first, then CAP_…,
// each once.
func Capabilities(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		out = append(out, n)
	}
	slices.Sort(out) // ALL sorts before CAP_
	return slices.Compact(out)
}

// Restart parses a value of --restart: no, always, unless-stopped,
// on-failure[:N].
func Restart(s string) (container.RestartPolicy, error) {
	var p container.RestartPolicy
	if s == "" {
		return p, nil
	}
	name, count, has := strings.Cut(s, ":")
	if name == "" {
		return p, invalidf("invalid restart policy format: no policy provided before colon")
	}
	if has && count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, invalidf("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	p.Name = container.RestartPolicyMode(name)
	return p, nil
}

// Pairs turns key=value values into a map; a value without "=" is an error
// that names the flag.
func Pairs(flag string, specs []string) (map[string]string, error) {
	var m map[string]string
	for _, s := range specs {
		if !strings.Contains(s, "=") {
			return nil, invalidf("invalid %s: %q: must be key=value", flag, s)
		}
		setPair(&m, s)
	}
	return m, nil
}
