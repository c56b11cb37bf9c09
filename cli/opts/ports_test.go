package opts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// portText shows bindings as "80/tcp=127.0.0.1:8080", sorted.
func portText(t *testing.T, spec string) string {
	t.Helper()
	exposed, bound, err := Ports([]string{spec})
	if err != nil {
		return "error: " + err.Error()
	}
	if len(exposed) != len(bound) {
		t.Errorf("%q: %d ports exposed, %d bound", spec, len(exposed), len(bound))
	}
	var out []string
	for p, bs := range bound {
		for _, b := range bs {
			ip := ""
			if b.HostIP.IsValid() {
				ip = b.HostIP.String()
			}
			out = append(out, fmt.Sprintf("%s=%s:%s", p, ip, b.HostPort))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPorts(t *testing.T) {
	for spec, want := range map[string]string{
		"80":                       "80/tcp=:",
		"80/udp":                   "80/udp=:",
		"8080:80":                  "80/tcp=:8080",
		"8080:80/SCTP":             "80/sctp=:8080",
		"127.0.0.1:8080:80":        "80/tcp=127.0.0.1:8080",
		"127.0.0.1::80":            "80/tcp=127.0.0.1:",
		"[::1]:8080:80":            "80/tcp=::1:8080",
		"::1:8080:80":              "80/tcp=::1:8080",
		"8000-8001:80-81":          "80/tcp=:8000 81/tcp=:8001",
		"8000-8010:80":             "80/tcp=:8000-8010",
		"80-81":                    "80/tcp=: 81/tcp=:",
		"target=80,published=8080": "80/tcp=:8080",
		"target=80,protocol=udp":   "80/udp=:",
		"":                         "error: no port specified: <empty>",
		"8080:":                    "error: no port specified: 8080:<empty>",
		"a:80":                     "error: invalid hostPort: a",
		"80:a":                     "error: invalid containerPort: a",
		"80:70000":                 "error: invalid containerPort: 70000",
		"80/foo":                   "error: invalid proto: foo",
		"x:1:2":                    "error: invalid IP address: x",
		"[::1:80:80":               "error: invalid IP address: [::1:80:80",
		"[::1]:80":                 "error: invalid IP address: [::1]:80",
		"1-3:5-6":                  "error: invalid ranges specified for container and host Ports: 5-6 and 1-3",
		"target=80,foo=1":          "error: invalid field key foo",
		"target=80,published":      "error: invalid publish opts format (should be name=value but got 'published')",
		"1.2.3.4:65535-65536:80":   "error: invalid hostPort: 65535-65536",
		"9-8:80":                   "error: invalid hostPort: 9-8",
	} {
		if got := portText(t, spec); got != want {
			t.Errorf("%q: got %q, want %q", spec, got, want)
		}
	}
}

func TestExpose(t *testing.T) {
	ports, err := Expose("91-93/udp")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[91/udp 92/udp 93/udp]", fmt.Sprint(ports)); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "80:80", "a", "9-8", "80/foo"} {
		if _, err := Expose(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzPorts(f *testing.F) {
	for _, s := range []string{"80", "[::1]:1-2:3-4/udp", "target=1,published=2", ":::", "0-65535:0-65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		exposed, bound, err := Ports([]string{s})
		if err == nil && len(exposed) != len(bound) {
			t.Errorf("%q: %d exposed, %d bound", s, len(exposed), len(bound))
		}
	})
}
