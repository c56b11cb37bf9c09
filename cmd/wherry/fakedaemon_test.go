package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// fakeDaemon answers requests on a unix socket from a table and writes what it
// was asked to the file "requests": method, path with query, and body.
//
// The table is the file "routes", a line each:
//
//	METHOD PATH STATUS FILE [Header=Value ...]
//
// PATH is without version and query. FILE is the body's; "-" is none. STATUS
// may be "attach": take the connection over, send FILE as standard output when
// the container is started, echo the input, and close; or "wait": answer
// with FILE after the start. Api-Version is that of the file "api-version", or
// 1.51; newer requests are refused as a daemon does.
type fakeDaemon struct {
	dir, socket string
	srv         *http.Server
	done        chan struct{}

	mu      sync.Mutex
	log     *os.File
	started chan struct{}
}

func startFakeDaemon(dir string) (*fakeDaemon, error) {
	d := &fakeDaemon{dir: dir, socket: filepath.Join(dir, "s"), done: make(chan struct{}), started: make(chan struct{})}
	var err error
	if d.log, err = os.Create(filepath.Join(dir, "requests")); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		return nil, err
	}
	d.srv = &http.Server{Handler: d}
	go func() {
		defer close(d.done)
		_ = d.srv.Serve(l)
	}()
	return d, nil
}

func (d *fakeDaemon) close() {
	_ = d.srv.Close()
	<-d.done
	_ = d.log.Close()
}

type route struct {
	status, file string
	header       []string
}

func (d *fakeDaemon) find(method, path string) (route, bool) {
	f, err := os.Open(filepath.Join(d.dir, "routes"))
	if err != nil {
		return route{}, false
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		if len(w) >= 4 && w[0] == method && w[1] == path {
			return route{w[2], w[3], w[4:]}, true
		}
	}
	return route{}, false
}

func (d *fakeDaemon) version() string {
	if raw, err := os.ReadFile(filepath.Join(d.dir, "api-version")); err == nil {
		return strings.TrimSpace(string(raw))
	}
	return "1.51"
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	asked := ""
	if rest, ok := strings.CutPrefix(path, "/v1."); ok {
		minor, p, _ := strings.Cut(rest, "/")
		asked, path = "1."+minor, "/"+p
	}
	hijack := r.Header.Get("Upgrade") != ""
	var body []byte
	if !hijack || r.ContentLength > 0 {
		body, _ = io.ReadAll(r.Body)
	}
	d.record(r, path, body)
	w.Header().Set("Api-Version", d.version())
	if asked != "" && newer(asked, d.version()) {
		d.fail(w, http.StatusBadRequest, "client version "+asked+" is too new")
		return
	}
	if path == "/_ping" {
		return
	}
	rt, ok := d.find(r.Method, path)
	if !ok {
		d.fail(w, http.StatusNotFound, "page not found: "+r.Method+" "+path)
		return
	}
	if strings.HasSuffix(path, "/start") {
		d.mu.Lock()
		select {
		case <-d.started:
		default:
			close(d.started)
		}
		d.mu.Unlock()
	}
	d.answer(w, rt)
}

func newer(a, b string) bool {
	var x, y int
	_, _ = fmt.Sscanf(a, "1.%d", &x)
	_, _ = fmt.Sscanf(b, "1.%d", &y)
	return x > y
}

func (d *fakeDaemon) record(r *http.Request, path string, body []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	line := r.Method + " " + path
	if len(body) > 0 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		line += " " + strings.TrimSpace(string(body))
	}
	fmt.Fprintln(d.log, line)
}

func (d *fakeDaemon) fail(w http.ResponseWriter, status int, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"message\":%q}\n", msg)
}

func (d *fakeDaemon) answer(w http.ResponseWriter, rt route) {
	var body []byte
	if rt.file != "-" {
		body, _ = os.ReadFile(filepath.Join(d.dir, rt.file))
	}
	w.Header().Set("Content-Type", "application/json")
	for _, h := range rt.header {
		k, v, _ := strings.Cut(h, "=")
		w.Header().Set(k, v)
	}
	switch rt.status {
	case "attach":
		d.attach(w, body)
		return
	case "wait":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-d.started
		_, _ = w.Write(body)
		return
	}
	var status int
	_, _ = fmt.Sscan(rt.status, &status)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// attach takes the connection over. The input comes back on standard error.
func (d *fakeDaemon) attach(w http.ResponseWriter, out []byte) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	<-d.started
	frame(conn, 1, out)
	in, err := io.ReadAll(rw)
	if err == nil || errors.Is(err, io.EOF) {
		frame(conn, 2, in)
	}
}

func frame(w io.Writer, stream byte, p []byte) {
	if len(p) == 0 {
		return
	}
	h := make([]byte, 8, 8+len(p))
	h[0] = stream
	binary.BigEndian.PutUint32(h[4:], uint32(len(p)))
	_, _ = w.Write(append(h, p...))
}
