package cli

import (
	"os"
	"strings"
)

// defaultPlatform is $DOCKER_DEFAULT_PLATFORM.
func defaultPlatform() string { return os.Getenv("DOCKER_DEFAULT_PLATFORM") }

// proxyEnv returns the variables of config.json's proxies that env lacks.
func (a *app) proxyEnv(env []string) []string {
	all := a.config().Proxies
	if len(all) == 0 {
		return nil
	}
	host, _ := a.defaultHost()
	p, ok := all[host]
	if !ok {
		p = all["default"]
	}
	has := func(name string) bool {
		for _, e := range env {
			if k, _, _ := strings.Cut(e, "="); k == name {
				return true
			}
		}
		return false
	}
	var out []string
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HTTPProxy}, {"HTTPS_PROXY", p.HTTPSProxy}, {"NO_PROXY", p.NoProxy},
		{"FTP_PROXY", p.FTPProxy}, {"ALL_PROXY", p.AllProxy},
	} {
		if v.value == "" {
			continue
		}
		for _, n := range []string{v.name, strings.ToLower(v.name)} {
			if !has(n) {
				out = append(out, n+"="+v.value)
			}
		}
	}
	return out
}
