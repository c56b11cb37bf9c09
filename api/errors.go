package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"

	"github.com/wherry-engine/wherry/api/route"
)

// statusClientClosed is written to the log when the client went away; nobody reads it.
const statusClientClosed = 499

// classes maps error classes to statuses. It is the only place that does.
var classes = map[error]int{
	errdefs.ErrInvalidArgument:    http.StatusBadRequest,
	errdefs.ErrOutOfRange:         http.StatusBadRequest,
	errdefs.ErrUnauthenticated:    http.StatusUnauthorized,
	errdefs.ErrPermissionDenied:   http.StatusForbidden,
	errdefs.ErrNotFound:           http.StatusNotFound,
	errdefs.ErrConflict:           http.StatusConflict,
	errdefs.ErrAlreadyExists:      http.StatusConflict,
	errdefs.ErrFailedPrecondition: http.StatusConflict,
	errdefs.ErrAborted:            http.StatusConflict,
	errdefs.ErrNotModified:        http.StatusNotModified,
	errdefs.ErrResourceExhausted:  http.StatusTooManyRequests,
	errdefs.ErrNotImplemented:     http.StatusNotImplemented,
	errdefs.ErrUnavailable:        http.StatusServiceUnavailable,
	context.Canceled:              statusClientClosed,
	context.DeadlineExceeded:      http.StatusGatewayTimeout,
}

// quirks are the statuses that clients expect against the rule, by route and class.
var quirks = map[string]map[error]int{
	// A network that still has endpoints, or is predefined, may not be removed.
	"DELETE /networks/{id}": {
		errdefs.ErrFailedPrecondition: http.StatusForbidden,
		errdefs.ErrConflict:           http.StatusForbidden,
	},
	// Endpoints of running containers cannot be changed in some modes.
	"POST /networks/{id}/connect": {
		errdefs.ErrFailedPrecondition: http.StatusForbidden,
	},
	// A pool that overlaps is a refusal, not a conflict of names.
	"POST /networks/create": {
		errdefs.ErrFailedPrecondition: http.StatusForbidden,
	},
	// What the machine cannot do (a port that is taken, a missing device) is
	// reported as a failure of the engine.
	"POST /containers/{id:.*}/start": {
		errdefs.ErrFailedPrecondition: http.StatusInternalServerError,
	},
	"POST /containers/{id:.*}/restart": {
		errdefs.ErrFailedPrecondition: http.StatusInternalServerError,
	},
}

// statusOf returns the status of an error of a route ("METHOD /pattern").
func statusOf(name string, err error) int {
	class := errdefs.Resolve(err)
	if status, ok := quirks[name][class]; ok {
		return status
	}
	if status, ok := classes[class]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// messageOf is the text for people: the error without the name of its class,
// which wrapping appends for the logs.
func messageOf(err error) string {
	msg := err.Error()
	class := errdefs.Resolve(err)
	if class == nil {
		return msg
	}
	if short, ok := strings.CutSuffix(msg, ": "+class.Error()); ok && short != "" {
		return short
	}
	return msg
}

// writeError answers with the JSON error. The header must not have been written.
func writeError(w http.ResponseWriter, status int, msg string) {
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	// The client is gone if this fails.
	_ = route.JSON(w, status, common.ErrorResponse{Message: msg})
}

// isClientGone tells an error that needs no log entry.
func isClientGone(err error) bool {
	return errors.Is(err, context.Canceled)
}
