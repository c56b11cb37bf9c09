package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// basicCredentials reads what a client sent. An empty user with a secret means an identity token.
func basicCredentials(a *registry.AuthConfig) (user, secret string, err error) {
	switch {
	case a == nil:
		return "", "", nil
	case a.IdentityToken != "":
		return "", a.IdentityToken, nil
	case a.Username == "" && a.Auth != "":
		raw, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return "", "", fmt.Errorf("credentials are not base64: %w", errdefs.ErrInvalidArgument)
		}
		user, secret, _ = strings.Cut(string(raw), ":")
		return user, strings.TrimRight(secret, "\x00"), nil
	}
	return a.Username, a.Password, nil
}

// authorizer answers challenges of one host with the credentials of a client.
func authorizer(client *http.Client, host string, a *registry.AuthConfig, opts ...docker.AuthorizerOpt) docker.Authorizer {
	if a != nil && a.RegistryToken != "" {
		return bearer{host: host, token: a.RegistryToken}
	}
	opts = append(opts, docker.WithAuthClient(client), docker.WithAuthCreds(func(h string) (string, string, error) {
		if h != host {
			return "", "", nil
		}
		return basicCredentials(a)
	}))
	return docker.NewDockerAuthorizer(opts...)
}

// bearer sends a token that the client already has.
type bearer struct{ host, token string }

func (b bearer) Authorize(_ context.Context, r *http.Request) error {
	if r.URL.Host == b.host {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return nil
}

func (bearer) AddResponses(_ context.Context, rs []*http.Response) error {
	if len(rs) > 1 {
		return fmt.Errorf("registry token refused: %w", docker.ErrInvalidAuthorization)
	}
	return fmt.Errorf("registry token refused: %w", errdefs.ErrNotImplemented)
}

// Login checks credentials against a registry and returns the identity token
// it issued, if any. Unauthenticated if they are wrong.
func (c *Client) Login(ctx context.Context, a registry.AuthConfig) (identityToken string, err error) {
	domain := serverDomain(a.ServerAddress)
	host, err := c.upstream(domain, c.certsDir(domain), &a)
	if err != nil {
		return "", err
	}
	var token string
	host.Authorizer = authorizer(host.Client, host.Host, &a, docker.WithFetchRefreshToken(
		func(_ context.Context, t string, _ *http.Request) { token = t }))
	target := host.Scheme + "://" + host.Host + "/v2/"
	var seen []*http.Response
	for range 3 {
		resp, err := c.ping(ctx, host, target)
		if err != nil {
			return "", loginError(target, err)
		}
		_ = resp.Body.Close()
		seen = append(seen, resp)
		switch resp.StatusCode {
		case http.StatusOK:
			return token, nil
		case http.StatusUnauthorized:
			if len(seen) > 1 {
				return "", statusError(target, resp)
			}
			if err := host.Authorizer.AddResponses(ctx, seen); err != nil {
				return "", loginError(target, err)
			}
		default:
			return "", statusError(target, resp)
		}
	}
	return "", fmt.Errorf("login attempt to %s failed: %w", target, errdefs.ErrUnauthenticated)
}

func (c *Client) ping(ctx context.Context, host docker.RegistryHost, target string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	req.Header.Set("User-Agent", c.options().UserAgent)
	if err := host.Authorizer.Authorize(ctx, req); err != nil {
		return nil, err
	}
	return host.Client.Do(req)
}

func statusError(target string, resp *http.Response) error {
	err := fmt.Errorf("login attempt to %s failed with status: %s", target, resp.Status)
	if resp.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnauthenticated)
	}
	return err
}

func loginError(target string, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.Is(err, docker.ErrInvalidAuthorization) || errors.Is(err, auth.ErrNoToken) ||
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) {
		return fmt.Errorf("Get %q: unauthorized: incorrect username or password: %w", target, errdefs.ErrUnauthenticated)
	}
	return fmt.Errorf("login attempt to %s failed: %w", target, err)
}

// serverDomain reads the address a client logs in to; the hub has several.
func serverDomain(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	if s == "" || s == "index.docker.io" || s == hubHost {
		return hubDomain
	}
	return s
}
