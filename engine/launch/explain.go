package launch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Exit codes of a start that failed.
const (
	CodeNotFound   = 127
	CodeNotAllowed = 126
	CodeFailed     = 128
)

// CreateError marks an error of the supervisor's Start.
func CreateError(err error) error { return createError{err} }

// ExplainStart gives an error of a start the exit code of the container. One of
// the supervisor gets the class and text that clients look for, too.
func ExplainStart(err error) (int, error) {
	var create createError
	if !errors.As(err, &create) {
		return CodeFailed, err
	}
	text := err.Error()
	if !errdefs.IsInvalidArgument(err) && (!strings.Contains(text, "mount") || !strings.Contains(text, "not a directory")) {
		return CodeFailed, err
	}
	return explain(err)
}

// explain gives an error of the runtime the class, text and exit code that
// clients look for.
func explain(err error) (int, error) {
	text := strings.ToLower(err.Error())
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("executable file not found", "no such file or directory", "system cannot find the file specified"):
		return CodeNotFound, invalid("%v", err)
	case has("not a directory") && has("mount"):
		return CodeNotFound, invalid("%v: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type", err)
	case has("permission denied", "not a directory", "is a directory", "exec format error"):
		return CodeNotAllowed, invalid("%v", err)
	}
	return CodeFailed, err
}

// ExplainExec gives an error of the supervisor's Exec the exit code, class and
// text that clients look for.
func ExplainExec(err error) (int, error) { return explain(execError{err}) }

// createError is an error of the supervisor's Start.
type createError struct{ err error }

func (c createError) Error() string {
	return "failed to create task for container: " + trimClass(c.err)
}

func (c createError) Unwrap() error { return c.err }

// trimClass is the text of an error without the name of its class.
func trimClass(err error) string {
	text := err.Error()
	if class := errdefs.Resolve(err); class != nil {
		text = strings.TrimSuffix(text, ": "+class.Error())
	}
	return text
}

// execError is an error of the supervisor's Exec.
type execError struct{ err error }

func (x execError) Error() string { return "OCI runtime exec failed: " + trimClass(x.err) }

func (x execError) Unwrap() error { return x.err }
