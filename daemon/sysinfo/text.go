package sysinfo

import (
	"net/netip"
	"net/url"
)

func parsePrefix(s string) (netip.Prefix, error) { return netip.ParsePrefix(s) }

// maskUser hides credentials in a proxy's URL.
func maskUser(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}
