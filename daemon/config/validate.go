package config

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/task"
)

// finish derives what depends on several options and validates the whole.
func (l *Loaded) finish() error {
	c := l.Config
	if c.TLS.verifySet {
		c.TLS.Enabled = true
	}
	if os.Getenv("DOCKER_TLS_VERIFY") != "" && !c.TLS.verifySet {
		c.TLS.Enabled, c.TLS.Verify = true, true
	}
	if c.MinAPIVersion == "" {
		c.MinAPIVersion = os.Getenv("DOCKER_MIN_API_VERSION")
	}
	if c.StorageDriver == "" {
		c.StorageDriver = os.Getenv("DOCKER_DRIVER")
	}
	if c.Containers.hostGatewayIPOnce.IsValid() {
		c.Containers.HostGatewayIPs = append(c.Containers.HostGatewayIPs, c.Containers.hostGatewayIPOnce)
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{DefaultHost}
	}
	if err := l.roots(); err != nil {
		return err
	}
	for _, check := range []func(*Config) error{
		checkLogging, checkLabels, checkRuntimes, checkModes, checkNumbers, checkNetwork, checkStorage, checkFeatures, checkProfile,
	} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loaded) roots() error {
	for _, p := range []struct {
		name string
		path *string
	}{{"data-root", &l.DataRoot}, {"exec-root", &l.ExecRoot}} {
		if *p.path == "" {
			return fmt.Errorf("%s must not be empty", p.name)
		}
		abs, err := filepath.Abs(*p.path)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		*p.path = abs
	}
	if l.Pidfile != "" {
		abs, err := filepath.Abs(l.Pidfile)
		if err != nil {
			return fmt.Errorf("pidfile: %w", err)
		}
		l.Pidfile = abs
	}
	return nil
}

func checkLogging(c *Config) error {
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"}, strings.ToLower(c.LogLevel)) {
		return fmt.Errorf("unable to parse logging level: %s", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("unknown log format: %s", c.LogFormat)
	}
	if !slices.Contains(logs.Drivers(), c.Containers.LogDriver) {
		return fmt.Errorf("log-driver: %q is not supported by this engine yet; it has %s", c.Containers.LogDriver, strings.Join(logs.Drivers(), ", "))
	}
	return logs.Validate(c.Containers.LogDriver, c.Containers.LogOpts)
}

func checkLabels(c *Config) error {
	seen := map[string]string{}
	for _, l := range c.Labels {
		k, _, _ := strings.Cut(l, "=")
		if other, ok := seen[k]; ok && other != l {
			return fmt.Errorf("conflict labels for %s and %s", l, other)
		}
		seen[k] = l
	}
	return nil
}

func checkRuntimes(c *Config) error {
	for name, r := range c.Runtimes {
		if IsBuiltinRuntime(name) {
			return fmt.Errorf("runtime name '%s' is reserved", name)
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("runtime %s: %w", name, err)
		}
	}
	if _, ok := c.Runtimes[c.DefaultRun]; !ok && !IsBuiltinRuntime(c.DefaultRun) {
		return fmt.Errorf("specified default runtime '%s' does not exist", c.DefaultRun)
	}
	for _, o := range c.ExecOpts {
		k, v, ok := strings.Cut(o, "=")
		switch {
		case !ok || strings.TrimSpace(k) != "native.cgroupdriver":
			return fmt.Errorf("exec-opts: %q is not supported by this engine; it has native.cgroupdriver only", o)
		case v != "cgroupfs" && v != "systemd":
			return fmt.Errorf("exec-opts: native.cgroupdriver: %q is neither cgroupfs nor systemd", v)
		}
	}
	if p := c.Containers.CgroupParent; p != "" && c.SystemdCgroup() && !task.IsSlice(p) {
		return fmt.Errorf("cgroup-parent: %q: with the systemd cgroup driver it must be the name of a slice, such as xxx.slice", p)
	}
	return nil
}

// SystemdCgroup tells that the systemd cgroup driver is chosen.
func (c *Config) SystemdCgroup() bool {
	return slices.ContainsFunc(c.ExecOpts, func(o string) bool { return strings.HasSuffix(o, "=systemd") })
}

// IsBuiltinRuntime tells the names under which the engine's own runtime goes.
func IsBuiltinRuntime(name string) bool {
	return name == BuiltinRuntime || name == "runc" || name == "io.containerd.runc.v2"
}

func checkModes(c *Config) error {
	d := &c.Containers
	if m := d.IPCMode; m != "private" && m != "shareable" {
		return fmt.Errorf("default IPC mode setting (%s) is invalid; use \"shareable\" or \"private\"", m)
	}
	if m := d.CgroupNSMode; m != "" && m != "private" && m != "host" {
		return fmt.Errorf("default cgroup namespace mode (%s) is invalid; use \"host\" or \"private\"", m)
	}
	if d.ShmSize <= 0 {
		return fmt.Errorf("default-shm-size must be positive")
	}
	return nil
}

func checkNumbers(c *Config) error {
	switch r := c.Registry; {
	case r.ConcurrentDownloads < 0:
		return fmt.Errorf("invalid max concurrent downloads: %d", r.ConcurrentDownloads)
	case r.ConcurrentUploads < 0:
		return fmt.Errorf("invalid max concurrent uploads: %d", r.ConcurrentUploads)
	case r.DownloadAttempts <= 0:
		return fmt.Errorf("invalid max download attempts: %d", r.DownloadAttempts)
	case c.Network.MTU < 0:
		return fmt.Errorf("invalid default MTU: %d", c.Network.MTU)
	}
	return nil
}

func checkNetwork(c *Config) error {
	n := &c.Network
	for _, p := range []struct{ name, value string }{
		{"bip", n.BIP}, {"bip6", n.BIP6}, {"fixed-cidr", n.FixedCIDR}, {"fixed-cidr-v6", n.FixedCIDRv6},
	} {
		if p.value == "" {
			continue
		}
		if _, err := netip.ParsePrefix(p.value); err != nil {
			return fmt.Errorf("%s: %q is not an address with a prefix length", p.name, p.value)
		}
	}
	if n.ForeignRules != "accept" && n.ForeignRules != "leave" {
		return fmt.Errorf("foreign-firewall: %q is neither accept nor leave", n.ForeignRules)
	}
	return nil
}

func checkStorage(c *Config) error {
	switch c.StorageDriver {
	case "", "overlayfs", "overlay2", "native", "vfs":
		return nil
	}
	return fmt.Errorf("storage-driver: %q is not supported by this engine yet; it has overlayfs and native (vfs)", c.StorageDriver)
}

// checkFeatures refuses the features that would ask for something else than there is.
func checkFeatures(c *Config) error {
	for name, on := range c.Features {
		switch name {
		case "buildkit", "containerd-snapshotter":
			if !on {
				return fmt.Errorf("features: %s cannot be disabled in this engine", name)
			}
		case "cdi", "embedded-containerd", "containerd-migration", "swarm-nftables", "time-namespaces":
			if on {
				return fmt.Errorf("features: %s is not supported by this engine yet", name)
			}
		}
	}
	return nil
}

// checkProfile sees that a seccomp profile can be read.
func checkProfile(c *Config) error {
	switch p := c.Containers.SeccompProfile; p {
	case "", "builtin", "unconfined":
		return nil
	default:
		data, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("opening seccomp profile failed: %w", err)
		}
		if !json.Valid(data) {
			return fmt.Errorf("seccomp-profile: %s is not JSON", p)
		}
		return nil
	}
}

func checkHost(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return DefaultHost, nil
	}
	proto, addr, ok := strings.Cut(s, "://")
	if !ok {
		proto, addr = "tcp", s
	}
	switch proto {
	case "unix", "tcp", "fd":
		return proto + "://" + addr, nil
	}
	return "", fmt.Errorf("invalid bind address format: %s", s)
}

func checkLabel(s string) (string, error) {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
		return "", fmt.Errorf("bad attribute format: %s", s)
	}
	return s, nil
}

func checkMirror(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("invalid mirror: %q is not a valid URI: %w", s, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", s)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("invalid mirror: query or fragment at end of the URI %q", s)
	case u.User != nil:
		return "", fmt.Errorf("invalid mirror: username/password not allowed in URI %q", u.Redacted())
	}
	return strings.TrimSuffix(s, "/") + "/", nil
}

func checkInsecure(s string) (string, error) {
	lower := strings.ToLower(s)
	if rest, ok := strings.CutPrefix(lower, "http://"); ok {
		s = rest
	} else if rest, ok := strings.CutPrefix(lower, "https://"); ok {
		s = rest
	}
	s = strings.TrimSuffix(s, "/")
	if _, err := netip.ParsePrefix(s); err == nil {
		return s, nil
	}
	if s == "" || strings.HasPrefix(s, "-") || strings.Contains(s, "/") {
		return "", fmt.Errorf("insecure registry %s is not valid: want host[:port] or CIDR", s)
	}
	if host, port, err := net.SplitHostPort(s); err == nil && (host == "" || port == "") {
		return "", fmt.Errorf("insecure registry %s is not valid: invalid host or port", s)
	}
	return s, nil
}

func checkDomain(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "." {
		return s, nil
	}
	if s == "" || strings.ContainsAny(s, " \t/:") {
		return "", fmt.Errorf("%s is not a valid domain", s)
	}
	return strings.TrimSuffix(s, "."), nil
}
