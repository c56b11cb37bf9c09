package route

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Form parses the query (and, for a form post, the body) into r.Form.
func Form(r *http.Request) error {
	err := r.ParseForm()
	if err != nil && !strings.HasPrefix(err.Error(), "mime:") {
		return fmt.Errorf("%v: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Bool reads a boolean query parameter as the API always has: absent, empty,
// "0", "no", "false" and "none" are false, all else is true.
func Bool(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.FormValue(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// BoolOr is Bool with a default for an absent parameter.
func BoolOr(r *http.Request, name string, def bool) bool {
	if Form(r) == nil && !r.Form.Has(name) {
		return def
	}
	return Bool(r, name)
}

// Int reads an integer query parameter, or def if it is absent or empty. InvalidArgument.
func Int(r *http.Request, name string, def int64) (int64, error) {
	s := r.FormValue(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid value %q for %s: must be an integer: %w", s, name, errdefs.ErrInvalidArgument)
	}
	return n, nil
}

// AtLeast reports whether the client asked for API version v or a newer one.
func AtLeast(r *http.Request, v string) bool { return CompareVersions(Version(r), v) >= 0 }

// CompareVersions orders API versions such as "1.9" and "1.24" by their numbers.
func CompareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y int
		x, a = leadingNumber(a)
		y, b = leadingNumber(b)
		if x != y {
			if x < y {
				return -1
			}
			return 1
		}
	}
	return 0
}

func leadingNumber(s string) (n int, rest string) {
	head, rest, _ := strings.Cut(s, ".")
	n, _ = strconv.Atoi(head) //nolint:errcheck // an empty part counts as zero
	return n, rest
}
