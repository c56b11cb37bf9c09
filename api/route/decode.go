package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/containerd/errdefs"
)

// maxJSON bounds the body of a request that is decoded as JSON, in bytes.
const maxJSON = 16 << 20

// RequireJSON refuses a body that is not declared as JSON, in the words clients know.
func RequireJSON(r *http.Request) error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && !hasBody(r) {
		return nil
	}
	mt, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return fmt.Errorf("malformed Content-Type header (%s): %v: %w", ct, err, errdefs.ErrInvalidArgument)
	}
	if mt != "application/json" {
		return fmt.Errorf("unsupported Content-Type header (%s): must be 'application/json': %w", ct, errdefs.ErrInvalidArgument)
	}
	return nil
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.ContentLength != 0
}

// Decode reads the JSON body into v. An absent body leaves v as it is and is
// no error; use HasBody where one is required. InvalidArgument.
func Decode(r *http.Request, v any) error {
	if err := RequireJSON(r); err != nil {
		return err
	}
	if !hasBody(r) {
		return nil
	}
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxJSON))
	if err := dec.Decode(v); err != nil {
		return decodeError(err)
	}
	if dec.More() {
		return fmt.Errorf("unexpected content after JSON: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// HasBody reports whether the request came with a body.
func HasBody(r *http.Request) bool { return hasBody(r) }

func decodeError(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("invalid JSON: got EOF while reading request body: %w", errdefs.ErrInvalidArgument)
	case errors.As(err, &tooLarge):
		return fmt.Errorf("invalid JSON: request body exceeds %d bytes: %w", tooLarge.Limit, errdefs.ErrInvalidArgument)
	case errdefs.IsInvalidArgument(err):
		return err
	default:
		return fmt.Errorf("invalid JSON: %v: %w", err, errdefs.ErrInvalidArgument)
	}
}
