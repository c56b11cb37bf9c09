// Package client talks to image registries: it knows which endpoints serve a
// registry (mirrors, certificates, insecure ones, hosts.toml), how to
// authenticate there, and how to say in Docker's words what went wrong. The
// protocol itself is containerd's.
package client

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// Options of a Client. The zero value talks to registries over verified https,
// and to those on loopback addresses also over http.
type Options struct {
	// Mirrors are base URLs asked before docker.io (`registry-mirrors`).
	Mirrors []string
	// Insecure lists hosts (with optional port) and CIDRs whose https is not
	// verified and that may speak http (`insecure-registries`).
	Insecure []string
	// CertsDirs are searched for a directory named like the registry that
	// holds *.crt, *.cert and *.key files or a hosts.toml. Default:
	// /etc/wherry/certs.d and /etc/docker/certs.d.
	CertsDirs []string
	// UserAgent of requests. Default "wherry".
	UserAgent string
	Logger    *slog.Logger
}

// Client talks to registries. It is safe for concurrent use.
type Client struct {
	mu         sync.Mutex
	opts       Options
	cidrs      []netip.Prefix
	hosts      map[string]bool
	transports map[string]http.RoundTripper
}

// New checks the options. InvalidArgument.
func New(opts Options) (*Client, error) {
	c := &Client{}
	if err := c.Reload(opts); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload replaces the options; transfers under way keep the old ones. InvalidArgument.
func (c *Client) Reload(opts Options) error {
	if opts.CertsDirs == nil {
		opts.CertsDirs = []string{"/etc/wherry/certs.d", "/etc/docker/certs.d"}
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "wherry"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	mirrors := make([]string, 0, len(opts.Mirrors))
	for _, m := range opts.Mirrors {
		u, err := checkMirror(m)
		if err != nil {
			return err
		}
		mirrors = append(mirrors, u)
	}
	opts.Mirrors = mirrors
	cidrs, hosts, err := parseInsecure(opts.Insecure)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts, c.cidrs, c.hosts = opts, cidrs, hosts
	c.transports = map[string]http.RoundTripper{}
	return nil
}

func checkMirror(m string) (string, error) {
	u, err := url.Parse(m)
	switch {
	case err != nil:
		return "", fmt.Errorf("invalid mirror: %q is not a valid URI: %w", m, errdefs.ErrInvalidArgument)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("invalid mirror: unsupported scheme %q in %q: must use either 'https://' or 'http://': %w", u.Scheme, m, errdefs.ErrInvalidArgument)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("invalid mirror: query or fragment at end of the URI %q, or no host: %w", m, errdefs.ErrInvalidArgument)
	case u.User != nil:
		return "", fmt.Errorf("invalid mirror: username/password not allowed in URI %q: %w", u.Redacted(), errdefs.ErrInvalidArgument)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func parseInsecure(list []string) ([]netip.Prefix, map[string]bool, error) {
	cidrs := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	hosts := map[string]bool{}
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			cidrs = append(cidrs, p.Masked())
			continue
		}
		if strings.Contains(s, "://") {
			return nil, nil, fmt.Errorf("insecure registry %s should not contain '://': %w", s, errdefs.ErrInvalidArgument)
		}
		if s == "" || strings.ContainsAny(s, "/ ") {
			return nil, nil, fmt.Errorf("insecure registry %q is not valid: %w", s, errdefs.ErrInvalidArgument)
		}
		hosts[strings.ToLower(s)] = true
	}
	return cidrs, hosts, nil
}

// Config returns what info shows: the mirrors, the insecure networks and hosts.
func (c *Client) Config() registry.ServiceConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	mirrors := append([]string{}, c.opts.Mirrors...)
	for i := range mirrors {
		mirrors[i] += "/"
	}
	cfg := registry.ServiceConfig{
		InsecureRegistryCIDRs: append([]netip.Prefix{}, c.cidrs...),
		Mirrors:               mirrors,
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true},
		},
	}
	for h := range c.hosts {
		cfg.IndexConfigs[h] = &registry.IndexInfo{Name: h, Mirrors: []string{}}
	}
	return cfg
}

// Resolver returns containerd's view of the registries for one transfer:
// auth, when given, is used for the registry of the reference alone. tracker
// may be nil.
func (c *Client) Resolver(auth *registry.AuthConfig, headers http.Header, tracker docker.StatusTracker) remotes.Resolver {
	h := http.Header{}
	for k, v := range headers {
		h[k] = v
	}
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", c.options().UserAgent)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: c.Hosts(auth), Headers: h, Tracker: tracker})
}

func (c *Client) options() Options {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts
}
