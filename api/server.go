package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wherry-engine/wherry/api/route"
)

// Versions of the API that are spoken.
const (
	CurrentVersion = "1.56"
	MinVersion     = "1.24"
)

// Options for New.
type Options struct {
	// Routes is the table, from Routes.
	Routes []Route
	// Logger receives failures, and every request at debug level. Required.
	Logger *slog.Logger
	// ServerVersion is the engine's version, for the Server header.
	ServerVersion string
	// Experimental is the value of the Docker-Experimental header.
	Experimental bool
	// MinVersion is the oldest API version to accept; "" is MinVersion.
	MinVersion string
	// Debug reports whether profiles may be read; nil means never.
	Debug func() bool
}

// Server answers requests on any number of listeners.
type Server struct {
	opts   Options
	router *router
	http   *http.Server
	wg     sync.WaitGroup
	cancel context.CancelFunc // ends every request

	streaming  context.Context //nolint:containedctx // the life of streams, which end at the beginning of a shutdown
	endStreams context.CancelFunc
}

// streams are the routes whose answers end when the client, or the daemon, does.
var streams = map[string]bool{
	"GET /events":                       true,
	"GET /containers/{id:.*}/logs":      true,
	"GET /containers/{id:.*}/stats":     true,
	"GET /containers/{id:.*}/attach/ws": true,
	"POST /containers/{id:.*}/attach":   true,
	"POST /containers/{id:.*}/wait":     true,
	"POST /exec/{id:.*}/start":          true,
	"POST /session":                     true,
	"POST /grpc":                        true,
}

// archives are the routes whose body is an archive, whatever type the client
// calls it: curl says it were a form, and reading it as one would lose it.
var archives = map[string]bool{
	"PUT /containers/{id:.*}/archive": true,
	"POST /images/load":               true,
	"POST /images/create":             true,
	"POST /build":                     true,
}

// New returns a server that does not listen yet.
func New(opts Options) *Server {
	if opts.MinVersion == "" {
		opts.MinVersion = MinVersion
	}
	s := &Server{opts: opts, router: newRouter(opts.Routes)}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.streaming, s.endStreams = context.WithCancel(ctx)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	return s
}

// Serve answers on l until Shutdown.
func (s *Server) Serve(l net.Listener) {
	s.wg.Go(func() {
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("serve API", "address", l.Addr().String(), "err", err)
		}
	})
}

// Shutdown stops listening, ends streams, and waits for other requests until
// the context ends; then it cuts them off.
func (s *Server) Shutdown(ctx context.Context) {
	s.endStreams()
	if err := s.http.Shutdown(ctx); err != nil {
		s.opts.Logger.Warn("requests were cut off at shutdown", "err", err)
		s.cancel()
		_ = s.http.Close() // nothing is left to be told
	}
	s.cancel()
	s.wg.Wait()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(hw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: hw}
	begin := time.Now()
	version, rest := splitVersion(r.URL.Path)
	rt, vars := s.router.find(r.Method, rest)
	name := r.Method + " " + rest
	if rt != nil {
		name = r.Method + " " + rt.Path
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(w, name, p)
		}
		if s.opts.Logger.Enabled(r.Context(), slog.LevelDebug) {
			s.opts.Logger.Debug("request", "method", r.Method, "path", r.URL.Path,
				"status", w.status, "took", time.Since(begin))
		}
	}()
	s.setHeaders(w)
	err := s.dispatch(w, r, rt, vars, version)
	if err != nil {
		s.fail(w, name, err)
	}
}

func (s *Server) setHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Server", "Wherry/"+s.opts.ServerVersion+" (linux)")
	h.Set("Api-Version", CurrentVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", strconv.FormatBool(s.opts.Experimental))
}

func (s *Server) dispatch(w *response, r *http.Request, rt *Route, vars map[string]string, version string) error {
	if clean := cleanPath(r.URL.Path); rt == nil && clean != r.URL.Path {
		to := *r.URL
		to.Path = clean
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return nil
	}
	if rt == nil {
		writeError(w, http.StatusNotFound, "page not found")
		return nil
	}
	if version == "" {
		version = CurrentVersion
	}
	if msg := s.refuseVersion(version, rt); msg != "" {
		writeError(w, http.StatusBadRequest, msg)
		return nil
	}
	if rt.Handler == nil {
		writeError(w, http.StatusNotImplemented, fmt.Sprintf("%s %s is not implemented by this engine yet", rt.Method, rt.Path))
		return nil
	}
	if streams[rt.Method+" "+rt.Path] {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.streaming, cancel)()
		r = r.WithContext(ctx)
	}
	if archives[rt.Method+" "+rt.Path] {
		r.PostForm = url.Values{} // so that ParseForm leaves the body alone
	}
	return rt.Handler(w, route.WithVars(r, vars, version))
}

// cleanPath takes double slashes and dots out of a path, as clients are used
// to be told by a redirection.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// refuseVersion returns why a version is not spoken, or "".
func (s *Server) refuseVersion(version string, rt *Route) string {
	switch {
	case route.CompareVersions(version, CurrentVersion) > 0:
		return fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", version, CurrentVersion)
	case route.CompareVersions(version, s.opts.MinVersion) < 0:
		return fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, s.opts.MinVersion)
	case route.CompareVersions(version, rt.Min) < 0:
		return fmt.Sprintf("%s %s requires API version %s or newer, the client uses %s", rt.Method, rt.Path, rt.Min, version)
	}
	return ""
}

// archiveTypes are the contents that a client takes for whole when they end.
var archiveTypes = map[string]bool{"application/x-tar": true, "application/octet-stream": true}

func (s *Server) fail(w *response, name string, err error) {
	status := statusOf(name, err)
	if w.written() {
		if !isClientGone(err) {
			s.opts.Logger.Warn("request failed after its answer had begun", "route", name, "err", err)
		}
		if archiveTypes[w.Header().Get("Content-Type")] {
			// Break the connection rather than end an archive that is not whole.
			panic(http.ErrAbortHandler)
		}
		return
	}
	if status >= http.StatusInternalServerError {
		s.opts.Logger.Error("request failed", "route", name, "status", status, "err", err)
	} else {
		s.opts.Logger.Debug("request refused", "route", name, "status", status, "err", err)
	}
	w.Header().Del("Content-Length")
	writeError(w, status, messageOf(err))
}

func (s *Server) panicked(w *response, name string, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.opts.Logger.Error("request panicked", "route", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if !w.written() {
		writeError(w, http.StatusInternalServerError, "the engine failed on this request; its log has the details")
	}
}
