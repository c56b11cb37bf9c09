package containers

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

// Wait handles POST /containers/{id}/wait.
func (h Handlers) Wait(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	req := container.WaitRequest{}
	if route.AtLeast(r, "1.30") {
		req.Condition = container.WaitCondition(r.FormValue("condition"))
		if !route.AtLeast(r, "1.34") && req.Condition == apicontainer.WaitConditionRemoved {
			req.Condition = ""
		}
	}
	if req.Condition == "" {
		req.Condition = apicontainer.WaitConditionNotRunning
	}
	begun := false
	req.Begin = func() {
		begun = true
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // a client that is gone is noticed by the context
	}
	if isSocket(r) {
		req.Hand = func() (net.Conn, error) { return handWait(w) }
	}
	res, err := h.b.Wait(r.Context(), ref(r), req)
	if err != nil && begun {
		return json.NewEncoder(w).Encode(apicontainer.WaitResponse{
			StatusCode: -1, Error: &apicontainer.WaitExitError{Message: err.Error()},
		})
	}
	if err != nil || res.Handed {
		return err
	}
	resp := apicontainer.WaitResponse{StatusCode: int64(res.ExitCode)}
	if res.Error != "" {
		resp.Error = &apicontainer.WaitExitError{Message: res.Error}
	}
	if begun {
		return json.NewEncoder(w).Encode(resp)
	}
	return route.JSON(w, http.StatusOK, resp)
}

// handWait sends the head of a chunked answer and gives the connection away;
// whoever has it writes the one chunk and closes.
func handWait(w http.ResponseWriter) (net.Conn, error) {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n")
	writeHeaders(&b, w.Header())
	conn, _, err := take(w)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// attachRequest reads the parameters of both attaches.
func attachRequest(r *http.Request) container.AttachRequest {
	return container.AttachRequest{
		Stdin: route.Bool(r, "stdin"), Stdout: route.Bool(r, "stdout"), Stderr: route.Bool(r, "stderr"),
		Stream: route.Bool(r, "stream"), Logs: route.Bool(r, "logs"), DetachKeys: r.FormValue("detachKeys"),
	}
}

// Attach handles POST /containers/{id}/attach.
func (h Handlers) Attach(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	req := attachRequest(r)
	req.Conn = &hijacker{w: w, r: r}
	return h.b.Attach(r.Context(), ref(r), req)
}

// Logs handles GET /containers/{id}/logs.
func (h Handlers) Logs(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	req := container.LogsRequest{
		Stdout: route.Bool(r, "stdout"), Stderr: route.Bool(r, "stderr"), Follow: route.Bool(r, "follow"), Tail: -1,
	}
	if !req.Stdout && !req.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	if n, err := strconv.Atoi(r.FormValue("tail")); err == nil && n >= 0 {
		req.Tail = n
	}
	for _, t := range []struct {
		name string
		dst  *time.Time
	}{{"since", &req.Since}, {"until", &req.Until}} {
		if text := r.FormValue(t.name); text != "" && text != "0" {
			at, err := route.ParseTime(text, time.Now())
			if err != nil {
				return invalid("invalid value for %q: %v", t.name, err)
			}
			*t.dst = at
		}
	}
	seq, tty, err := h.b.Logs(r.Context(), ref(r), req)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamType(r, tty))
	w.WriteHeader(http.StatusOK)
	out := newLogWriter(w, !tty, route.Bool(r, "timestamps"), route.Bool(r, "details"), req.Follow)
	for m, err := range seq {
		if err != nil {
			if r.Context().Err() != nil {
				return nil
			}
			return errors.Join(out.fail(err), out.flush())
		}
		if err := out.write(m); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
	}
	return out.flush()
}
