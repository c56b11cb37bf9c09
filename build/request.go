package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"
)

// Request is a build asked for through the classic API.
type Request struct {
	// Context is the tar stream of the build context; Remote, if set, names it instead.
	Context io.ReadCloser
	Remote  string
	// Session is the client's BuildKit session; then the context comes through it.
	Session string
	// BuildID lets the client cancel.
	BuildID string

	Dockerfile   string
	Tags         []string
	BuildArgs    map[string]*string
	Labels       map[string]string
	Target       string
	NoCache      bool
	Pull         bool
	NetworkMode  string
	ExtraHosts   []string
	Platform     string
	CgroupParent string
	ShmSize      int64 // bytes
	Ulimits      []*units.Ulimit
	CacheFrom    []string
	// Auth are credentials by registry host.
	Auth map[string]registry.AuthConfig
	// BuildKit asks for BuildKit's own progress messages.
	BuildKit bool
}

// clientSession is what clients put into Remote when the context comes through the session.
const clientSession = "client-session"

// attrs are the Dockerfile frontend's options. InvalidArgument.
func (r *Request) attrs() (map[string]string, error) {
	a := map[string]string{}
	set := func(k, v string) {
		if v != "" {
			a[k] = v
		}
	}
	set("filename", r.Dockerfile)
	set("target", r.Target)
	set("platform", r.Platform)
	set("cgroup-parent", r.CgroupParent)
	if r.NoCache {
		a["no-cache"] = ""
	}
	if r.Pull {
		a["image-resolve-mode"] = "pull"
	}
	for k, v := range r.BuildArgs {
		if v != nil {
			a["build-arg:"+k] = *v
		}
	}
	for k, v := range r.Labels {
		a["label:"+k] = v
	}
	switch r.NetworkMode {
	case "", "default", "bridge":
	case "host", "none":
		a["force-network-mode"] = r.NetworkMode
	default:
		return nil, fmt.Errorf("network mode %q is not supported by the builder: use default, host or none: %w", r.NetworkMode, errdefs.ErrInvalidArgument)
	}
	hosts, err := extraHosts(r.ExtraHosts)
	if err != nil {
		return nil, err
	}
	set("add-hosts", hosts)
	if r.ShmSize > 0 {
		a["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	if len(r.Ulimits) > 0 {
		var us []string
		for _, u := range r.Ulimits {
			us = append(us, u.String())
		}
		a["ulimit"] = strings.Join(us, ",")
	}
	return a, nil
}

// extraHosts turns "name:ip" into the frontend's "name=ip" list.
func extraHosts(in []string) (string, error) {
	var out []string
	for _, h := range in {
		name, ip, ok := strings.Cut(h, ":")
		if !ok || net.ParseIP(strings.Trim(ip, "[]")) == nil {
			return "", fmt.Errorf("invalid host %q: want NAME:IP: %w", h, errdefs.ErrInvalidArgument)
		}
		out = append(out, name+"="+strings.Trim(ip, "[]"))
	}
	return strings.Join(out, ","), nil
}

// imageNames are the normalised tags, comma-separated, as the exporter wants
// them; empty ones are left out. InvalidArgument.
func imageNames(tags []string) (string, error) {
	var out []string
	for _, t := range tags {
		if t == "" {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return "", fmt.Errorf("invalid tag %q: %w: %w", t, err, errdefs.ErrInvalidArgument)
		}
		if _, ok := ref.(reference.Digested); ok {
			return "", fmt.Errorf("invalid tag %q: refusing to create a tag with a digest reference: %w", t, errdefs.ErrInvalidArgument)
		}
		name := reference.TagNameOnly(ref).String()
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ","), nil
}

// solve translates the request; the returned function ends the session that
// was made for it.
func (r *Request) solve(ctx context.Context, run *running, ref string) (*controlapi.SolveRequest, func(), error) {
	attrs, err := r.attrs()
	if err != nil {
		return nil, nil, err
	}
	names, err := imageNames(r.Tags)
	if err != nil {
		return nil, nil, err
	}
	req := &controlapi.SolveRequest{
		Ref: ref, Frontend: "dockerfile.v0", FrontendAttrs: attrs, Session: r.Session,
		Exporters: []*controlapi.Exporter{{Type: exporterMoby, Attrs: map[string]string{"name": names}}},
		Cache:     &controlapi.CacheOptions{},
	}
	if names == "" {
		req.Exporters[0].Attrs = map[string]string{}
	}
	for _, from := range r.CacheFrom {
		req.Cache.Imports = append(req.Cache.Imports, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": from}})
	}
	switch {
	case r.Remote == clientSession && r.Session == "":
		return nil, nil, fmt.Errorf("a context from the client's session needs the session parameter: %w", errdefs.ErrInvalidArgument)
	case r.Remote != "" && r.Remote != clientSession:
		if err := checkRemote(r.Remote); err != nil {
			return nil, nil, err
		}
		attrs["context"] = r.Remote
	}
	if r.Session != "" {
		return req, func() {}, nil
	}
	end, err := r.ownSession(ctx, run, req)
	return req, end, err
}

// checkRemote refuses what is neither an archive or Dockerfile on the web nor
// a Git repository. InvalidArgument.
func checkRemote(remote string) error {
	if strings.HasPrefix(remote, "http://") || strings.HasPrefix(remote, "https://") {
		return nil
	}
	if _, ok, err := dfgitutil.ParseGitRef(remote); !ok || err != nil {
		return fmt.Errorf("remoteURL (%s) could not be recognized as URL: %w", remote, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ownSession gives the build a session of the daemon's, which carries the
// uploaded context and the credentials.
func (r *Request) ownSession(ctx context.Context, run *running, req *controlapi.SolveRequest) (func(), error) {
	sess, err := session.NewSession(ctx, "")
	if err != nil {
		return nil, err
	}
	if r.Context != nil && r.Remote == "" {
		body, err := framed(r.Context)
		if err != nil {
			return nil, err
		}
		up := uploadprovider.New()
		req.FrontendAttrs["context"] = up.Add(body)
		sess.Allow(up)
	}
	sess.Allow(&credentials{auth: r.Auth})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sess.Run(ctx, func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			local, remote := net.Pipe()
			go func() { _ = run.sessions.HandleConn(ctx, remote, meta) }()
			return local, nil
		})
	}()
	req.Session = sess.ID()
	return func() { sess.Close(); <-done }, nil
}

// credentials answers BuildKit's questions for registry logins.
type credentials struct {
	auth.UnimplementedAuthServer
	auth map[string]registry.AuthConfig
}

func (c *credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

// dockerHub is how clients name the credentials of Docker's own registry.
const dockerHub = "https://index.docker.io/v1/"

func (c *credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	hosts := []string{req.Host, "https://" + req.Host, "http://" + req.Host, "https://" + req.Host + "/v1/"}
	if slices.Contains([]string{"registry-1.docker.io", "docker.io", "index.docker.io"}, req.Host) {
		hosts = append(hosts, dockerHub, "docker.io", "index.docker.io")
	}
	for _, h := range hosts {
		a, ok := c.auth[h]
		if !ok {
			continue
		}
		if a.IdentityToken != "" {
			return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
		}
		user, secret := a.Username, a.Password
		if user == "" && a.Auth != "" {
			if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
				user, secret, _ = strings.Cut(string(raw), ":")
			}
		}
		return &auth.CredentialsResponse{Username: user, Secret: secret}, nil
	}
	return &auth.CredentialsResponse{}, nil
}

// framed puts a plain first entry in front of an uncompressed tar stream.
// BuildKit takes a context for an archive only if its first kilobyte holds a
// whole header, which it does not when the first file has PAX records.
func framed(r io.ReadCloser) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the build context: %w", err)
	}
	if len(head) == 0 {
		return nil, fmt.Errorf("the build context is empty: %w", errdefs.ErrInvalidArgument)
	}
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zX", "\x28\xb5\x2f\xfd"} {
		if strings.HasPrefix(string(head), magic) {
			return readCloser{br, r}, nil
		}
	}
	var first bytes.Buffer
	w := tar.NewWriter(&first)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, Format: tar.FormatUSTAR})
	if err = errors.Join(err, w.Flush()); err != nil {
		return nil, err
	}
	return readCloser{io.MultiReader(&first, br), r}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}
