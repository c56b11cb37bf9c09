package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/ociref"
)

const (
	// answerBudget bounds the JSON answers of a registry, in bytes.
	answerBudget = 4 << 20
	maxTagPages  = 1000
)

// Tags lists the tags of a repository. NotFound.
func (c *Client) Tags(ctx context.Context, ref ociref.Reference, a *registry.AuthConfig) ([]string, error) {
	hosts, err := c.Hosts(a)(ref.Domain)
	if err != nil {
		return nil, err
	}
	host := hosts[len(hosts)-1]
	ctx = docker.WithScope(ctx, "repository:"+ref.Path+":pull")
	next := host.Scheme + "://" + host.Host + host.Path + "/" + ref.Path + "/tags/list"
	var tags []string
	for range maxTagPages {
		page, link, err := c.tagPage(ctx, host, next)
		if err != nil {
			return nil, PullError(ref, a != nil, err)
		}
		tags = append(tags, page...)
		if next, err = nextPage(next, link); err != nil || next == "" {
			return tags, err
		}
	}
	return nil, fmt.Errorf("registry lists tags of %s without end: %w", ref.FamiliarName(), errdefs.ErrOutOfRange)
}

func (c *Client) tagPage(ctx context.Context, host docker.RegistryHost, target string) (tags []string, link string, err error) {
	resp, err := c.authorized(ctx, host, target)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", unexpected(resp)
	}
	var doc struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBudget)).Decode(&doc); err != nil {
		return nil, "", fmt.Errorf("read tags: %w", err)
	}
	return doc.Tags, resp.Header.Get("Link"), nil
}

// authorized sends a GET, and sends it again with an answer to a challenge.
func (c *Client) authorized(ctx context.Context, host docker.RegistryHost, target string) (*http.Response, error) {
	resp, err := c.ping(ctx, host, target)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_ = resp.Body.Close()
	if err := host.Authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
		if errdefs.IsNotImplemented(err) {
			err = errors.Join(docker.ErrInvalidAuthorization, err)
		}
		return nil, err
	}
	return c.ping(ctx, host, target)
}

// nextPage follows `<path>; rel="next"` on the same host.
func nextPage(current, link string) (string, error) {
	target, rel, ok := strings.Cut(link, ";")
	if !ok || !strings.Contains(rel, `"next"`) {
		return "", nil
	}
	base, err := url.Parse(current)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
	if err != nil {
		return "", fmt.Errorf("read the link to more tags: %w", err)
	}
	if u.Host != base.Host {
		return "", fmt.Errorf("registry sends to another host for more tags: %w", errdefs.ErrPermissionDenied)
	}
	u.Scheme = base.Scheme
	return u.String(), nil
}
