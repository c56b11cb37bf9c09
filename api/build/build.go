// Package build answers the build endpoints: the classic /build, BuildKit's
// /grpc and /session, and the build cache.
package build

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	apibuild "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/api/route"
)

// Backend is what the endpoints need of the builder.
type Backend interface {
	Build(ctx context.Context, req Request, out Output) error
	ServeGRPC(ctx context.Context, conn net.Conn) error
	ServeSession(w http.ResponseWriter, r *http.Request) error
	Prune(ctx context.Context, req PruneRequest) (apibuild.CachePruneReport, error)
	Cancel(buildID string)
}

// Request is a decoded build request.
type Request struct {
	Context                         io.ReadCloser
	Remote, Session, BuildID        string
	Dockerfile, Target, NetworkMode string
	Platform, CgroupParent          string
	Tags, ExtraHosts, CacheFrom     []string
	BuildArgs                       map[string]*string
	Labels                          map[string]string
	NoCache, Pull, Quiet, BuildKit  bool
	ShmSize                         int64
	Ulimits                         []*units.Ulimit
	Auth                            map[string]registry.AuthConfig
}

// Output receives a build's progress.
type Output interface {
	Stream(text string) error
	Aux(id string, v any) error
}

// PruneRequest is a decoded prune request.
type PruneRequest struct {
	All                                       bool
	KeepDuration                              time.Duration
	ReservedSpace, MaxUsedSpace, MinFreeSpace int64
	Filter                                    []string
}

// Handlers are the endpoints.
type Handlers struct{ b Backend }

// New returns the handlers over a backend.
func New(b Backend) Handlers { return Handlers{b} }

// Build is POST /build.
func (h Handlers) Build(w http.ResponseWriter, r *http.Request) error {
	req, err := decode(r)
	if err != nil {
		return err
	}
	out := newOutput(w, req.Quiet)
	if err := h.b.Build(r.Context(), req, out); err != nil {
		if !out.started() {
			return err
		}
		out.fail(err)
	}
	return nil
}

// Cancel is POST /build/cancel.
func (h Handlers) Cancel(w http.ResponseWriter, r *http.Request) error {
	id := r.FormValue("id")
	if id == "" {
		return fmt.Errorf("build ID not provided: %w", errdefs.ErrInvalidArgument)
	}
	h.b.Cancel(id)
	w.WriteHeader(http.StatusOK)
	return nil
}

// Prune is POST /build/prune.
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error {
	req := PruneRequest{All: boolean(r, "all")}
	for key, dst := range map[string]*int64{
		"reserved-space": &req.ReservedSpace, "keep-storage": &req.ReservedSpace,
		"max-used-space": &req.MaxUsedSpace, "min-free-space": &req.MinFreeSpace,
	} {
		if v := r.FormValue(key); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("%s is in bytes and expects an integer, got %q: %w", key, v, errdefs.ErrInvalidArgument)
			}
			*dst = n
		}
	}
	f, err := route.ParseFilters(r, "until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "immutable", "mutable")
	if err != nil {
		return err
	}
	for name, values := range f {
		if len(values) != 1 {
			return fmt.Errorf("filter %q takes one value: %w", name, errdefs.ErrInvalidArgument)
		}
		switch name {
		case "until", "unused-for":
			if req.KeepDuration, err = time.ParseDuration(values[0]); err != nil {
				return fmt.Errorf("filter %q expects a duration such as 24h, got %q: %w", name, values[0], errdefs.ErrInvalidArgument)
			}
		case "id", "parent", "type", "description":
			req.Filter = append(req.Filter, name+"=="+values[0])
		default:
			req.Filter = append(req.Filter, name)
		}
	}
	if len(req.Filter) > 1 {
		req.Filter = []string{strings.Join(req.Filter, ",")}
	}
	rep, err := h.b.Prune(r.Context(), req)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, rep)
}

// Session is POST /session.
func (h Handlers) Session(w http.ResponseWriter, r *http.Request) error {
	return h.b.ServeSession(w, r)
}

// GRPC is POST /grpc: the connection becomes HTTP/2 carrying BuildKit's API.
func (h Handlers) GRPC(w http.ResponseWriter, r *http.Request) error {
	if proto := r.Header.Get("Upgrade"); proto != "h2c" {
		return fmt.Errorf("protocol %q is not supported: upgrade to h2c: %w", proto, errdefs.ErrInvalidArgument)
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil
	}
	const head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		return nil // the client went away
	}
	return h.b.ServeGRPC(context.WithoutCancel(r.Context()), bufferedConn{conn, rw.Reader})
}

// bufferedConn reads first what the server had already read.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func boolean(r *http.Request, key string) bool {
	switch strings.ToLower(r.FormValue(key)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// unsupported are parameters of the classic builder that have no meaning for
// BuildKit; a value other than the default is refused by name.
var unsupported = []string{"memory", "memswap", "cpushares", "cpusetcpus", "cpusetmems", "cpuperiod", "cpuquota", "squash", "isolation", "securityopt", "outputs"}

func decode(r *http.Request) (Request, error) {
	q := r.URL.Query()
	for _, name := range unsupported {
		switch v := q.Get(name); v {
		case "", "0", "false", "null", "[]", "-1", "default":
		default:
			return Request{}, fmt.Errorf("build option %s=%s is not supported by this builder: %w", name, v, errdefs.ErrInvalidArgument)
		}
	}
	req := Request{
		Context: r.Body, Remote: q.Get("remote"), Session: q.Get("session"), BuildID: q.Get("buildid"),
		Dockerfile: q.Get("dockerfile"), Target: q.Get("target"), NetworkMode: q.Get("networkmode"),
		Platform: q.Get("platform"), CgroupParent: q.Get("cgroupparent"),
		Tags: q["t"], ExtraHosts: q["extrahosts"],
		NoCache: boolean(r, "nocache"), Pull: boolean(r, "pull"), Quiet: boolean(r, "q"),
		BuildKit: q.Get("version") == string(apibuild.BuilderBuildKit),
	}
	if v := q.Get("version"); v != "" && v != string(apibuild.BuilderV1) && v != string(apibuild.BuilderBuildKit) {
		return req, fmt.Errorf("invalid version %s: %w", v, errdefs.ErrInvalidArgument)
	}
	if v := q.Get("shmsize"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return req, fmt.Errorf("shmsize %q is not a number of bytes: %w", v, errdefs.ErrInvalidArgument)
		}
		req.ShmSize = n
	}
	for key, dst := range map[string]any{"buildargs": &req.BuildArgs, "labels": &req.Labels, "cachefrom": &req.CacheFrom, "ulimits": &req.Ulimits} {
		if v := q.Get(key); v != "" {
			if err := json.Unmarshal([]byte(v), dst); err != nil {
				return req, fmt.Errorf("error reading %s: %v: %w", key, err, errdefs.ErrInvalidArgument)
			}
		}
	}
	var err error
	req.Auth, err = authConfigs(r.Header.Get("X-Registry-Config"))
	return req, err
}

// authConfigs decodes the logins a client sends along. InvalidArgument.
func authConfigs(header string) (map[string]registry.AuthConfig, error) {
	if header == "" {
		return nil, nil
	}
	out := map[string]registry.AuthConfig{}
	raw := base64.NewDecoder(base64.URLEncoding, strings.NewReader(header))
	if err := json.NewDecoder(raw).Decode(&out); err != nil {
		return nil, fmt.Errorf("invalid X-Registry-Config header: %v: %w", err, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// output streams JSON messages; with quiet only the image ID is sent.
type output struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	enc   *json.Encoder
	quiet bool
	begun bool
}

func newOutput(w http.ResponseWriter, quiet bool) *output {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // the context is still arriving while we answer
	return &output{w: w, rc: rc, enc: enc, quiet: quiet}
}

func (o *output) started() bool { return o.begun }

func (o *output) send(v any) error {
	if !o.begun {
		o.w.Header().Set("Content-Type", "application/json")
		o.w.WriteHeader(http.StatusOK)
		o.begun = true
	}
	return errors.Join(o.enc.Encode(v), o.rc.Flush())
}

func (o *output) Stream(text string) error {
	if o.quiet {
		return nil
	}
	return o.send(map[string]string{"stream": text})
}

func (o *output) Aux(id string, v any) error {
	if o.quiet {
		if ids, ok := v.(map[string]string); ok {
			return o.send(map[string]string{"stream": ids["ID"] + "\n"})
		}
		return nil
	}
	msg := map[string]any{"aux": v}
	if id != "" {
		msg["id"] = id
	}
	return o.send(msg)
}

func (o *output) fail(err error) {
	detail := map[string]any{"message": err.Error()}
	var coded interface{ ExitStatus() int }
	if errors.As(err, &coded) {
		detail["code"] = coded.ExitStatus()
	}
	_ = o.send(map[string]any{"errorDetail": detail, "error": err.Error()})
}
