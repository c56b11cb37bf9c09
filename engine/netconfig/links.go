package netconfig

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
)

// Link is one legacy link of the default bridge: to a container that runs.
type Link struct {
	Alias string
	To    *container.Spec
	IP    netip.Addr
}

// linkHosts are the lines of /etc/hosts that links add.
func linkHosts(links []Link) string {
	var b strings.Builder
	for _, l := range links {
		names := []string{l.Alias, l.To.ID.Short(), l.To.Name}
		fmt.Fprintf(&b, "%s\t%s\n", l.IP, strings.Join(slices.Compact(names), " "))
	}
	return b.String()
}

// LinkEnv are the variables that links have set since the first of them.
func LinkEnv(s *container.Spec, links []Link) []string {
	var out []string
	for _, l := range links {
		prefix := strings.ToUpper(strings.ReplaceAll(l.Alias, "-", "_"))
		out = append(out, fmt.Sprintf("%s_NAME=/%s/%s", prefix, s.Name, l.Alias))
		target := l.To.Config
		first := true
		for _, p := range slices.SortedFunc(maps.Keys(target.ExposedPorts), byNumber) {
			url := fmt.Sprintf("%s://%s:%d", p.Proto(), l.IP, p.Num())
			if first {
				out = append(out, prefix+"_PORT="+url)
				first = false
			}
			base := fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Num(), strings.ToUpper(string(p.Proto())))
			out = append(out, base+"="+url, fmt.Sprintf("%s_ADDR=%s", base, l.IP),
				fmt.Sprintf("%s_PORT=%d", base, p.Num()), fmt.Sprintf("%s_PROTO=%s", base, p.Proto()))
		}
		for _, kv := range target.Env {
			if !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "PATH=") {
				out = append(out, prefix+"_ENV_"+kv)
			}
		}
	}
	return out
}

func byNumber(a, b apinetwork.Port) int {
	return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
}
