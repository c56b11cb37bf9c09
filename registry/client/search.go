package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// searchHost answers searches for docker.io.
const searchHost = "index.docker.io"

func unexpected(resp *http.Response) error {
	if resp.StatusCode == http.StatusNotFound {
		return errdefs.ErrNotFound
	}
	return remoteerrors.NewUnexpectedStatusErr(resp)
}

// Search asks a registry's search endpoint. The term may begin with a
// registry ("host:5000/term"). limit 0 means 25. Unavailable if the registry
// cannot be reached.
func (c *Client) Search(ctx context.Context, term string, limit int, a *registry.AuthConfig) ([]registry.SearchResult, error) {
	if limit == 0 {
		limit = 25
	}
	if limit < 1 || limit > 100 {
		return nil, fmt.Errorf("limit %d is outside the range of [1, 100]: %w", limit, errdefs.ErrInvalidArgument)
	}
	domain, query := splitTerm(term)
	if query == "" || strings.Contains(query, "://") {
		return nil, fmt.Errorf("invalid search term %q: %w", term, errdefs.ErrInvalidArgument)
	}
	host, err := c.upstream(domain, c.certsDir(domain), a)
	if err != nil {
		return nil, err
	}
	if domain == hubDomain {
		host.Host = searchHost
	}
	target := host.Scheme + "://" + host.Host + "/v1/search?q=" + url.QueryEscape(query) + "&n=" + strconv.Itoa(limit)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	req.Header.Set("User-Agent", c.options().UserAgent)
	req.Header.Set("X-Docker-Token", "true")
	if user, secret, err := basicCredentials(a); err == nil && user != "" {
		req.SetBasicAuth(user, secret)
	}
	return runSearch(host.Client, req)
}

func runSearch(client *http.Client, req *http.Request) ([]registry.SearchResult, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("search: %w: %w", err, errdefs.ErrUnavailable)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("search: unexpected status code %d from %s: %w", resp.StatusCode, req.URL.Host, errdefs.ErrUnavailable)
	}
	var doc registry.SearchResults
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBudget)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("read search results: %w", err)
	}
	return doc.Results, nil
}

func splitTerm(term string) (domain, query string) {
	first, rest, ok := strings.Cut(term, "/")
	if _, _, err := net.SplitHostPort(first); ok && (err == nil || strings.Contains(first, ".") || first == "localhost") {
		if first == "docker.io" || first == "index.docker.io" {
			return hubDomain, strings.TrimPrefix(rest, "library/")
		}
		return first, rest
	}
	return hubDomain, strings.TrimPrefix(term, "library/")
}
