package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/client"
)

// containerPath is the API path of an action on a container.
func containerPath(name, action string) string {
	p := "/containers/" + client.Segment(name)
	if action != "" {
		p += "/" + action
	}
	return p
}

// each calls do for every name, prints the names that worked, and errors as
// they come. The last error only sets the status.
func (a *app) each(names []string, do func(name string) error) error {
	return a.eachQuiet(names, func(name string) error {
		switch err := do(name); {
		case errors.Is(err, errSkip):
			return nil
		case err != nil:
			return err
		}
		fmt.Fprintln(a.out, name)
		return nil
	})
}

// eachQuiet is each without printing the names.
func (a *app) eachQuiet(names []string, do func(name string) error) error {
	var texts []string
	for _, n := range names {
		err := do(n)
		var conn *client.ConnError
		var sig signalError
		switch {
		case err == nil:
		case errors.As(err, &conn), errors.As(err, &sig):
			return err
		default:
			texts = append(texts, a.message(err))
		}
	}
	if texts != nil {
		return statusError{1, strings.Join(texts, "\n")}
	}
	return nil
}

// waiting is an answer to /wait that is still to come.
type waiting struct {
	query url.Values
	done  chan struct{} // closed when the answer is there
	exit  int
	err   error
	cut   bool // err is that of a connection, or of a daemon that ends
}

// startWait registers with the daemon; it returns when that is done, before the
// container ends.
func startWait(ctx context.Context, cl *client.Client, id string, cond container.WaitCondition) (*waiting, error) {
	w := &waiting{query: url.Values{"condition": {string(cond)}}}
	return w, w.restart(ctx, cl, id)
}

// restart registers, again if the answer before did not come.
func (w *waiting) restart(ctx context.Context, cl *client.Client, id string) error {
	body, err := cl.Stream(ctx, client.Request{Method: http.MethodPost, Path: containerPath(id, "wait"), Query: w.query})
	if err != nil {
		return err
	}
	w.done, w.exit, w.err, w.cut = make(chan struct{}), 0, nil, false
	go func() {
		defer close(w.done)
		defer body.Close() //nolint:errcheck // read to its end
		w.read(body)
	}()
	return nil
}

func (w *waiting) read(body io.Reader) {
	var r container.WaitResponse
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		w.exit, w.err, w.cut = 125, fmt.Errorf("wait for container: %w", err), true
		return
	}
	if w.exit = int(r.StatusCode); r.Error != nil && r.Error.Message != "" {
		w.exit, w.err, w.cut = 125, errors.New(r.Error.Message), r.StatusCode < 0
	}
}

// code waits for the end and returns the exit code.
func (w *waiting) code() (int, error) {
	<-w.done
	return w.exit, w.err
}

func (w *waiting) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// lost tells that an answer will not come. Called when done is closed.
func (w *waiting) lost() bool { return w.cut }

// settle makes the exit code known from elsewhere.
func (w *waiting) settle(code int) {
	done := make(chan struct{})
	close(done)
	w.done, w.exit, w.err = done, code, nil
}

// attachRequest asks for a connection to a container's streams.
func attachRequest(s *session, id string) client.Request {
	return client.Request{Method: http.MethodPost, Path: containerPath(id, "attach"), Query: attachQuery(s, false)}
}

// attachQuery says which streams to attach.
func attachQuery(s *session, logs bool) url.Values {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": s.stdin, "stdout": s.stdout, "stderr": s.stderr, "logs": logs} {
		if on {
			q.Set(name, "1")
		}
	}
	if k := s.keys(); k != "" {
		q.Set("detachKeys", k)
	}
	return q
}

// exitStatus is the program's status for a container's exit code.
func exitStatus(code int, err error) error {
	switch {
	case err != nil:
		return statusError{code, err.Error()}
	case code != 0:
		return statusError{code, ""}
	}
	return nil
}

// inspectContainer reads what attach, logs and start need to know.
func inspectContainer(ctx context.Context, cl *client.Client, name string) (container.InspectResponse, error) {
	var c struct {
		ID         string `json:"Id"`
		Name       string
		State      *container.State
		Config     *struct{ Tty, OpenStdin, StdinOnce, AttachStdin bool }
		HostConfig *struct{ AutoRemove bool }
	}
	var out container.InspectResponse
	if err := cl.Get(ctx, containerPath(name, "json"), nil, &c); err != nil {
		return out, err
	}
	out.ID, out.Name, out.State = c.ID, c.Name, c.State
	out.Config, out.HostConfig = &container.Config{}, &container.HostConfig{}
	if c.Config != nil {
		out.Config.Tty, out.Config.OpenStdin = c.Config.Tty, c.Config.OpenStdin
		out.Config.StdinOnce, out.Config.AttachStdin = c.Config.StdinOnce, c.Config.AttachStdin
	}
	if c.HostConfig != nil {
		out.HostConfig.AutoRemove = c.HostConfig.AutoRemove
	}
	if out.State == nil {
		out.State = &container.State{}
	}
	return out, nil
}

// errSkip leaves a name out of what each prints.
var errSkip = errors.New("skip")

// note prints an error that is not one for the command.
func (a *app) note(err error) { fmt.Fprintln(a.err, a.message(err)) }
