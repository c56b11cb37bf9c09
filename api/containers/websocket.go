package containers

import (
	"net/http"

	"golang.org/x/net/websocket"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

// AttachWS handles GET /containers/{id}/attach/ws.
func (h Handlers) AttachWS(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	if r.Header.Get("Sec-Websocket-Key") == "" {
		return invalid("the client did not ask for a websocket")
	}
	req := attachRequest(r)
	if !r.Form.Has("stream") {
		req.Stream = true
	}
	req.Raw = true
	conn := &socket{w: w, r: r, done: make(chan struct{})}
	req.Conn = conn
	defer conn.end()
	return h.b.Attach(r.Context(), ref(r), req)
}

// socket upgrades to a websocket once the engine wants the connection. The
// websocket lives until end.
type socket struct {
	w       http.ResponseWriter
	r       *http.Request
	done    chan struct{}
	served  chan struct{}
	started bool
}

// Hijack implements container.Conn.
func (s *socket) Hijack(bool, bool) (container.Stream, error) {
	ready := make(chan *websocket.Conn, 1)
	s.served = make(chan struct{})
	s.started = true
	srv := websocket.Server{
		// Access is by the socket's permissions or TLS, not by the page's origin;
		// a browser's page of another origin is refused.
		Handshake: func(_ *websocket.Config, r *http.Request) error { return sameOrigin(r) },
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			ready <- ws
			<-s.done
		},
	}
	go func() {
		defer close(s.served)
		srv.ServeHTTP(s.w, s.r)
	}()
	select {
	case ws := <-ready:
		return container.Stream{Conn: ws}, nil
	case <-s.served:
		return container.Stream{}, invalid("the websocket handshake failed")
	}
}

func (s *socket) end() {
	close(s.done)
	if s.started {
		<-s.served
	}
}

func sameOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" || origin == "http://"+r.Host || origin == "https://"+r.Host {
		return nil
	}
	return invalid("websocket from another origin: %s", origin)
}
