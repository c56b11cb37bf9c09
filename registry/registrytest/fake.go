package registrytest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Fake is a registry in memory that serves pulls, and misbehaves where a test
// says so.
type Fake struct {
	*httptest.Server
	// Hook sees each request first; it returns true if it has answered.
	Hook func(w http.ResponseWriter, r *http.Request) bool
	// Token, when set, is asked for as a Bearer token, which the endpoint
	// /token gives to User and Pass (to anybody if User is empty).
	Token, User, Pass string

	mu       sync.Mutex
	blobs    map[string]Blob
	tags     map[string]Blob
	requests []string
}

// NewFake serves on loopback until the test ends.
func NewFake(t testing.TB) *Fake {
	t.Helper()
	f := &Fake{blobs: map[string]Blob{}, tags: map[string]Blob{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// Host is the registry part of references.
func (f *Fake) Host() string { return strings.TrimPrefix(f.URL, "http://") }

// Add stores an image under a tag.
func (f *Fake) Add(img Image, tag string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range append([]Blob{img.Config, img.Manifest}, img.Layers...) {
		f.blobs[b.Digest.String()] = b
	}
	f.tags[tag] = img.Manifest
}

// Requests lists "METHOD path" of all requests so far.
func (f *Fake) Requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.requests...)
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
	f.mu.Unlock()
	if f.Hook != nil && f.Hook(w, r) {
		return
	}
	if r.URL.Path == "/token" {
		f.token(w, r)
		return
	}
	if f.Token != "" && r.Header.Get("Authorization") != "Bearer "+f.Token {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="fake",scope="repository:x:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
		return
	}
	f.content(w, r)
}

func (f *Fake) token(w http.ResponseWriter, r *http.Request) {
	user, pass, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		user, pass = r.FormValue("username"), r.FormValue("password")
		if r.FormValue("grant_type") == "refresh_token" {
			user, pass = f.User, r.FormValue("refresh_token")
		}
	}
	if f.User != "" && (user != f.User || pass != f.Pass) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": f.Token, "access_token": f.Token, "expires_in": 300})
}

func (f *Fake) content(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	name := parts[len(parts)-1]
	f.mu.Lock()
	b, ok := f.blobs[name]
	if !ok {
		b, ok = f.tags[name]
	}
	f.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
		return
	}
	f.Send(w, r, b, b.Data)
}

// Send answers with data as the content of a blob, honouring Range.
func (*Fake) Send(w http.ResponseWriter, r *http.Request, b Blob, data []byte) {
	w.Header().Set("Docker-Content-Digest", b.Digest.String())
	w.Header().Set("Content-Type", b.MediaType)
	if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		from, _, _ = strings.Cut(from, "-")
		n, err := strconv.Atoi(from)
		if err != nil || n > len(data) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", "bytes "+from+"-"+strconv.Itoa(len(data)-1)+"/"+strconv.Itoa(len(data)))
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-n))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data[n:])
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}
