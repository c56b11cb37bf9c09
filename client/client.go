package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// APIVersion is the newest Engine API version that this client speaks.
const APIVersion = "1.56"

// MinAPIVersion is the oldest Engine API version that this client speaks.
const MinAPIVersion = "1.24"

// Options configure a Client. Only Host is required.
type Options struct {
	// Host is the daemon's address: unix://PATH, tcp://HOST:PORT,
	// http://HOST:PORT, https://HOST:PORT, fd:// is refused, ssh://[USER@]HOST.
	Host string
	// TLS, when set, is used for tcp hosts.
	TLS *tls.Config
	// Version pins the API version and switches negotiation off.
	Version string
	// UserAgent is sent with each request.
	UserAgent string
	// Headers are added to each request (HttpHeaders of config.json).
	Headers map[string]string
	// RemoteCommands are tried on an ssh host, in order, to get a
	// connection to its daemon; default {"wherry system dial-stdio",
	// "docker system dial-stdio"}.
	RemoteCommands []string
}

// Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	opts Options
	host string // as given, for messages
	base string // scheme://authority of request URLs
	dial func(context.Context) (net.Conn, error)
	http *http.Client
	// local is the transport of a daemon on this machine, nil for others.
	local *direct

	mu      sync.Mutex
	version string // without "v"; what requests carry
	settled bool   // the daemon has answered with this version
	server  string // the daemon's own newest version, "" until known
}

// New returns a Client for o.Host. It opens no connection.
func New(o Options) (*Client, error) {
	c := &Client{opts: o, host: o.Host, version: APIVersion}
	if o.Version != "" {
		c.version, c.settled = strings.TrimPrefix(o.Version, "v"), true
	}
	if err := c.setDialer(); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DialTLSContext:      func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		MaxIdleConnsPerHost: 6,
		DisableCompression:  true,
	}
	c.http = &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if via[0].Method == http.MethodGet {
				return http.ErrUseLastResponse
			}
			return fmt.Errorf("unexpected redirect of %s %s: %w", via[0].Method, via[0].URL.Path, errdefs.ErrInvalidArgument)
		},
	}
	if strings.HasPrefix(o.Host, "unix://") {
		c.local = &direct{dial: c.dial, next: transport}
		c.http.Transport = c.local
	}
	return c, nil
}

// Host returns the daemon's address as it was given.
func (c *Client) Host() string { return c.host }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version returns the API version that requests carry now, without "v".
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// setDialer derives the dialer and the base URL from the host.
func (c *Client) setDialer() error {
	scheme, rest, ok := strings.Cut(c.opts.Host, "://")
	if !ok {
		return fmt.Errorf("unable to parse docker host `%s`: %w", c.opts.Host, errdefs.ErrInvalidArgument)
	}
	switch scheme {
	case "unix":
		c.base = "http://api.wherry.localhost"
		c.dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", rest)
		}
	case "tcp", "http", "https":
		u, err := url.Parse(c.opts.Host)
		if err != nil || u.Host == "" {
			return fmt.Errorf("unable to parse docker host `%s`: %w", c.opts.Host, errdefs.ErrInvalidArgument)
		}
		c.setTCP(scheme, u)
	case "ssh":
		c.base = "http://api.wherry.localhost"
		return c.setSSH()
	default:
		return fmt.Errorf("protocol %q of host %q is not supported: %w", scheme, c.opts.Host, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (c *Client) setTCP(scheme string, u *url.URL) {
	conf := c.opts.TLS
	if scheme == "https" && conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "2375", true: "2376"}[conf != nil]
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	prefix := strings.TrimSuffix(u.Path, "/")
	if conf == nil {
		c.base = "http://" + addr + prefix
		c.dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
		return
	}
	c.base = "https://" + addr + prefix
	c.dial = func(ctx context.Context) (net.Conn, error) {
		d := tls.Dialer{Config: conf}
		return d.DialContext(ctx, "tcp", addr)
	}
}
