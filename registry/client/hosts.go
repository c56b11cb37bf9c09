package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/moby/moby/api/types/registry"
)

const (
	hubDomain = "docker.io"
	hubHost   = "registry-1.docker.io"

	pullOnly = docker.HostCapabilityPull | docker.HostCapabilityResolve
	allCaps  = pullOnly | docker.HostCapabilityPush | docker.HostCapabilityReferrers

	// lookupTimeout bounds the resolution of a name against insecure networks.
	lookupTimeout = 2 * time.Second
)

// Hosts returns the endpoints of each registry in the order they are asked.
// Credentials go to the registry itself, never to its mirrors.
func (c *Client) Hosts(auth *registry.AuthConfig) docker.RegistryHosts {
	return func(domain string) ([]docker.RegistryHost, error) {
		dir := c.certsDir(domain)
		if dir != "" {
			if _, err := os.Stat(filepath.Join(dir, "hosts.toml")); err == nil {
				return c.fromToml(domain, dir, auth)
			}
		}
		var list []docker.RegistryHost
		if domain == hubDomain {
			for _, m := range c.options().Mirrors {
				h, err := c.mirror(m)
				if err != nil {
					return nil, err
				}
				list = append(list, h)
			}
		}
		h, err := c.upstream(domain, dir, auth)
		if err != nil {
			return nil, err
		}
		return append(list, h), nil
	}
}

// fromToml takes the endpoints from the registry's hosts.toml.
func (c *Client) fromToml(domain, dir string, auth *registry.AuthConfig) ([]docker.RegistryHost, error) {
	host := domain
	if host == hubDomain {
		host = hubHost
	}
	opts := config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
	opts.Credentials = func(h string) (string, string, error) {
		if h != host {
			return "", "", nil
		}
		return basicCredentials(auth)
	}
	return config.ConfigureHosts(context.Background(), opts)(domain)
}

func (c *Client) mirror(base string) (docker.RegistryHost, error) {
	u, err := url.Parse(base)
	if err != nil {
		return docker.RegistryHost{}, fmt.Errorf("mirror %s: %w", base, err)
	}
	rt, err := c.transport(u.Host, c.certsDir(u.Host))
	if err != nil {
		return docker.RegistryHost{}, err
	}
	path := strings.TrimSuffix(u.Path, "/")
	if !strings.HasSuffix(path, "/v2") {
		path += "/v2"
	}
	client := &http.Client{Transport: rt}
	return docker.RegistryHost{
		Client: client, Host: u.Host, Scheme: u.Scheme, Path: path, Capabilities: pullOnly,
		Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(noCredentials)),
	}, nil
}

func noCredentials(string) (string, string, error) { return "", "", nil }

func (c *Client) upstream(domain, dir string, auth *registry.AuthConfig) (docker.RegistryHost, error) {
	host := domain
	if host == hubDomain {
		host = hubHost
	}
	rt, err := c.transport(host, dir)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	h := docker.RegistryHost{
		Client: &http.Client{Transport: rt}, Host: host, Scheme: "https", Path: "/v2", Capabilities: allCaps,
	}
	if _, port, _ := net.SplitHostPort(host); port == "80" && c.insecure(host) {
		h.Scheme = "http"
	}
	h.Authorizer = authorizer(h.Client, host, auth)
	return h, nil
}

// transport returns the round tripper for a host. Those without a certificate
// directory are shared, so that connections are.
func (c *Client) transport(host, dir string) (http.RoundTripper, error) {
	if dir == "" {
		c.mu.Lock()
		rt := c.transports[host]
		c.mu.Unlock()
		if rt != nil {
			return rt, nil
		}
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if dir != "" {
		if err := loadCerts(cfg, dir); err != nil {
			return nil, err
		}
	}
	var rt http.RoundTripper
	insecure := c.insecure(host)
	if insecure {
		cfg.InsecureSkipVerify = true //nolint:gosec // the operator listed the registry as insecure, or it is on loopback
	}
	tr := docker.DefaultHTTPTransport(cfg)
	tr.MaxIdleConnsPerHost = 8
	rt = tr
	if insecure {
		rt = docker.NewHTTPFallback(tr)
	}
	if dir == "" {
		c.mu.Lock()
		c.transports[host] = rt
		c.mu.Unlock()
	}
	return rt, nil
}

// certsDir finds the directory of a registry's certificates; "" if none.
func (c *Client) certsDir(host string) string {
	if host == "" || strings.ContainsAny(host, "/\\") || strings.HasPrefix(host, ".") {
		return ""
	}
	for _, root := range c.options().CertsDirs {
		dir := filepath.Join(root, host)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
	}
	return ""
}

// loadCerts reads *.crt as authorities and *.cert with *.key as client certificates.
func loadCerts(cfg *tls.Config, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			if err := addAuthority(cfg, path); err != nil {
				return err
			}
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("missing key %s for client certificate %s. CA certificates must use the extension .crt", filepath.Base(key), e.Name())
			}
			if err != nil {
				return fmt.Errorf("load client certificate %s: %w", path, err)
			}
			cfg.Certificates = append(cfg.Certificates, pair)
		}
	}
	return nil
}

func addAuthority(cfg *tls.Config, path string) error {
	if cfg.RootCAs == nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		cfg.RootCAs = pool
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %s", path)
	}
	return nil
}

// insecure reports whether a registry may be spoken to without verification.
func (c *Client) insecure(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	c.mu.Lock()
	cidrs, listed := c.cidrs, c.hosts[strings.ToLower(host)] || c.hosts[strings.ToLower(name)]
	c.mu.Unlock()
	if listed || name == "localhost" {
		return true
	}
	if name == hubHost {
		return false
	}
	for _, a := range addresses(name) {
		for _, p := range cidrs {
			if p.Contains(a.Unmap()) {
				return true
			}
		}
	}
	return false
}

func addresses(name string) []netip.Addr {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	return list
}
