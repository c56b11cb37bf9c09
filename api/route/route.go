// Package route is the small vocabulary that API groups and the route table
// share: the handler type, path variables, the negotiated version, and helpers
// that decode requests and encode answers. It knows no endpoint.
package route

import (
	"context"
	"encoding/json"
	"net/http"
)

// Handler answers one request; a returned error is turned into a JSON error
// with the status of its errdefs class by the server.
type Handler func(w http.ResponseWriter, r *http.Request) error

type ctxKey int

const (
	varsKey ctxKey = iota
	versionKey
)

// WithVars returns a request that carries the path variables and the API
// version the client asked for, such as "1.44".
func WithVars(r *http.Request, vars map[string]string, version string) *http.Request {
	ctx := context.WithValue(r.Context(), varsKey, vars)
	return r.WithContext(context.WithValue(ctx, versionKey, version))
}

// Var returns a path variable; "" if there is none of that name.
func Var(r *http.Request, name string) string {
	vars, _ := r.Context().Value(varsKey).(map[string]string)
	return vars[name]
}

// Version returns the API version of the request.
func Version(r *http.Request) string {
	v, _ := r.Context().Value(versionKey).(string)
	return v
}

// JSON writes v with the status code.
func JSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
