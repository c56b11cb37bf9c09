// Package check validates what a user asks of a container before anything is
// made, with the words Docker's clients know, and fills in the defaults that
// inspect shows. It touches nothing.
package check

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func refused(format string, args ...any) error {
	return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf(format, args...) + " is not supported by this engine yet")
}

// What is longer cannot work, and would only be repeated in errors and state.
const (
	maxPath = 4096 // bytes (PATH_MAX)
	maxUser = 256  // bytes, of user and group names
)

// Config checks the portable half of a request. InvalidArgument.
func Config(c *apicontainer.Config) error {
	if c.WorkingDir != "" {
		c.WorkingDir = path.Clean(c.WorkingDir)
		if !path.IsAbs(c.WorkingDir) {
			return invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
		}
	}
	if len(c.WorkingDir) > maxPath || strings.ContainsRune(c.WorkingDir, 0) {
		return invalid("the working directory '%.60s…' is invalid, it is longer than %d bytes or contains a NUL byte", c.WorkingDir, maxPath)
	}
	if len(c.User) > maxUser || strings.ContainsAny(c.User, "\n\x00") {
		return invalid("invalid user: %.60q is longer than %d bytes or contains a line break or NUL byte", c.User, maxUser)
	}
	for _, env := range c.Env {
		if name, _, _ := strings.Cut(env, "="); name == "" {
			return invalid("invalid environment variable: %s", env)
		}
		if strings.ContainsRune(env, 0) {
			return invalid("invalid environment variable: %q contains a NUL byte", env)
		}
	}
	for _, arg := range append(append([]string(nil), c.Entrypoint...), c.Cmd...) {
		if strings.ContainsRune(arg, 0) {
			return invalid("invalid argument: %q contains a NUL byte", arg)
		}
	}
	if len(c.Hostname) > 64 {
		return invalid("invalid hostname: %q is longer than 64 bytes", c.Hostname)
	}
	if len(c.Domainname) > 64 {
		return invalid("invalid domain name: %q is longer than 64 bytes", c.Domainname)
	}
	if strings.ContainsAny(c.Hostname, "\n\x00/ ") || strings.ContainsAny(c.Domainname, "\n\x00/ ") {
		return invalid("invalid hostname: %q", c.Hostname+"."+c.Domainname)
	}
	if c.StopSignal != "" {
		if _, err := Signal(c.StopSignal); err != nil {
			return err
		}
	}
	return Health(c.Healthcheck)
}

// Health checks the configuration of a health check; nil is fine. InvalidArgument.
func Health(h *apicontainer.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < apicontainer.MinimumDuration {
			return invalid("%s in Healthcheck cannot be less than %s", d.name, apicontainer.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "NONE", "CMD", "CMD-SHELL":
		default:
			return invalid("unknown health check test type %q: must be NONE, CMD or CMD-SHELL", h.Test[0])
		}
	}
	return nil
}

// ExtraHosts checks name:address entries. InvalidArgument.
func ExtraHosts(hosts []string) error {
	for _, entry := range hosts {
		name, addr, ok := SplitHost(entry)
		if !ok || name == "" {
			return invalid("bad format for add-host: %q", entry)
		}
		if addr == "host-gateway" {
			continue
		}
		if _, err := netip.ParseAddr(addr); err != nil {
			return invalid("invalid IP address in add-host: %q", addr)
		}
	}
	return nil
}

// SplitHost splits an entry of ExtraHosts, which is name:address, or
// name=address for an IPv6 address in brackets or not.
func SplitHost(entry string) (name, addr string, ok bool) {
	name, addr, ok = strings.Cut(entry, ":")
	if n, a, eq := strings.Cut(entry, "="); eq && !strings.Contains(n, ":") {
		name, addr, ok = n, a, true
	}
	if len(addr) > 2 && addr[0] == '[' && addr[len(addr)-1] == ']' {
		addr = addr[1 : len(addr)-1]
	}
	return name, addr, ok && addr != ""
}
