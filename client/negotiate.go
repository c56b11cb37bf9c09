package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// PingResult is what a daemon says about itself in the headers of /_ping.
type PingResult struct {
	APIVersion     string // newest version the daemon speaks
	OSType         string
	BuilderVersion string // "1" classic, "2" BuildKit, "" unknown
	Experimental   bool
}

// Ping asks the daemon for its version and settles on one both speak.
func (c *Client) Ping(ctx context.Context) (PingResult, error) {
	resp, err := c.Do(ctx, Request{Method: http.MethodHead, Path: "/_ping", Unversioned: true})
	if err != nil {
		return PingResult{}, err
	}
	drain(resp)
	c.agree(resp.Header.Get("Api-Version"))
	return PingResult{
		APIVersion:     resp.Header.Get("Api-Version"),
		OSType:         resp.Header.Get("Ostype"),
		BuilderVersion: resp.Header.Get("Builder-Version"),
		Experimental:   resp.Header.Get("Docker-Experimental") == "true",
	}, nil
}

// Negotiated reports whether the daemon speaks at least the given version. It
// pings only if nothing was heard from the daemon yet.
func (c *Client) Negotiated(ctx context.Context, atLeast string) (bool, error) {
	if err := c.settle(ctx); err != nil {
		return false, err
	}
	return !Older(c.Version(), atLeast), nil
}

// settle makes sure that the version is one the daemon speaks.
func (c *Client) settle(ctx context.Context) error {
	c.mu.Lock()
	settled := c.settled
	c.mu.Unlock()
	if settled {
		return nil
	}
	_, err := c.Ping(ctx)
	return err
}

// agree settles on the lower of the daemon's version and ours.
func (c *Client) agree(server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if server != "" {
		c.server = server
	}
	if c.settled {
		return
	}
	switch {
	case server == "":
		c.version = MinAPIVersion
	case Older(server, c.version):
		c.version = server
	}
	c.settled = true
}

// learn looks at an answer to a request that carried version. It reports
// whether the request was refused for its version and is worth repeating.
func (c *Client) learn(resp *http.Response, version string) bool {
	c.mu.Lock()
	settled := c.settled
	c.mu.Unlock()
	if settled {
		return false
	}
	server := resp.Header.Get("Api-Version")
	refused := resp.StatusCode == http.StatusBadRequest && server != "" && Older(server, version)
	if server != "" || resp.StatusCode < 400 {
		if server == "" {
			server = version
		}
		c.agree(server)
	}
	return refused
}

// Older reports whether API version a is older than b ("1.9" < "1.41").
func Older(a, b string) bool {
	amaj, amin := split(a)
	bmaj, bmin := split(b)
	if amaj != bmaj {
		return amaj < bmaj
	}
	return amin < bmin
}

func split(v string) (major, minor int) {
	a, b, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return major, minor
}
