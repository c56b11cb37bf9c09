package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

// Error is an answer with a status of 400 or above. It unwraps to the errdefs
// class of the status.
type Error struct {
	Status  int
	Message string
}

// Error returns the daemon's message in the words that users of Docker know.
func (e *Error) Error() string { return "Error response from daemon: " + e.Message }

// Unwrap returns the errdefs class of the status.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusBadRequest:
		return errdefs.ErrInvalidArgument
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusConflict:
		return errdefs.ErrConflict
	case http.StatusNotModified:
		return errdefs.ErrNotModified
	case http.StatusNotImplemented:
		return errdefs.ErrNotImplemented
	case http.StatusServiceUnavailable:
		return errdefs.ErrUnavailable
	case http.StatusInternalServerError:
		return errdefs.ErrInternal
	}
	return errdefs.ErrUnknown
}

// ConnError says that the daemon could not be reached. It unwraps to the cause
// and to errdefs.ErrUnavailable.
type ConnError struct {
	Host string
	Err  error
}

// Error names the host and, when it says more, the cause.
func (e *ConnError) Error() string {
	if e.Permission() {
		return "permission denied while trying to connect to the daemon at " + e.Host
	}
	return "cannot connect to the daemon at " + e.Host + ": " + e.Err.Error()
}

// Permission reports whether the caller may not open the socket.
func (e *ConnError) Permission() bool { return errors.Is(e.Err, os.ErrPermission) }

// Unwrap returns the cause and the class.
func (e *ConnError) Unwrap() []error { return []error{e.Err, errdefs.ErrUnavailable} }

// connError tells a cancelled call from an unreachable daemon.
func (c *Client) connError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return &ConnError{Host: c.host, Err: err}
}

// decodeError reads the message of a refused request.
func decodeError(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	e := &Error{Status: resp.StatusCode}
	var msg struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &msg) == nil && msg.Message != "" {
		e.Message = msg.Message
	} else {
		e.Message = strings.TrimSpace(string(raw))
	}
	if e.Message == "" {
		e.Message = "request returned " + resp.Status
		if resp.Request != nil {
			e.Message += " for " + resp.Request.Method + " " + resp.Request.URL.Path
		}
	}
	return e
}
