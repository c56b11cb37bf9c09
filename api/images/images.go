// Package images is the images group of the Engine API: it decodes requests,
// calls the image store through the Backend it declares, and encodes answers
// in the shape of the client's API version.
package images

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/image"
)

// Backend is the image store.
type Backend interface {
	image.Resolver
	image.Transfer
	image.Tagger
	image.Inspector
}

// Searcher searches a registry. Unavailable if it cannot be reached.
type Searcher interface {
	Search(ctx context.Context, term string, limit int, auth *registry.AuthConfig) ([]registry.SearchResult, error)
}

// User is a container that uses an image.
type User struct {
	ID string
	// Image is what the container's inspection calls its image, and Manifest
	// the digest of the platform's manifest, if known.
	Image, Manifest digest.Digest
	Running         bool
}

// Options of Handlers. Images is required.
type Options struct {
	Images Backend
	Search Searcher
	// Users lists the containers; nil means none.
	Users func(ctx context.Context) []User
	// Fetch opens a URL for import (`fromSrc`); nil uses plain HTTP.
	Fetch  func(ctx context.Context, url string) (io.ReadCloser, error)
	Logger *slog.Logger
}

// Handlers are the endpoints; every method of the shape of route.Handler is one.
type Handlers struct{ o Options }

// New returns the endpoints.
func New(o Options) Handlers {
	if o.Users == nil {
		o.Users = func(context.Context) []User { return nil }
	}
	if o.Fetch == nil {
		o.Fetch = fetch
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return Handlers{o}
}

// users indexes containers by what they name as their image.
type users map[digest.Digest][]User

func (h Handlers) users(ctx context.Context) users {
	m := users{}
	for _, u := range h.o.Users(ctx) {
		m[u.Image] = append(m[u.Image], u)
		if u.Manifest != "" && u.Manifest != u.Image {
			m[u.Manifest] = append(m[u.Manifest], u)
		}
	}
	return m
}

// of lists the containers that use any of the digests, each once.
func (m users) of(ds ...digest.Digest) []User {
	var list []User
	seen := map[string]bool{}
	for _, d := range ds {
		for _, u := range m[d] {
			if !seen[u.ID] {
				seen[u.ID] = true
				list = append(list, u)
			}
		}
	}
	return list
}

// inUse answers the store's question who uses an image; a running container counts first.
func (m users) inUse(id, config digest.Digest) (string, bool) {
	found := ""
	for _, u := range m.of(id, config) {
		if u.Running {
			return u.ID, true
		}
		if found == "" {
			found = u.ID
		}
	}
	return found, false
}

func fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, invalid("invalid source %q: %v", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		_ = resp.Body.Close()
		return nil, invalid("Got HTTP status code >= 400: %s", resp.Status)
	}
	return resp.Body, nil
}
