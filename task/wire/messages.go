package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// Hello is the body of OpHello: the range of protocols the client speaks.
type Hello struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// StartMeta is the first section of OpStart's body; the second is the
// task.StartRequest without its seccomp profile, the third that profile
// (empty: none). They travel apart because profiles are large and few: both
// sides keep the encoded and the decoded form of those last seen.
// Descriptors follow in the order NetNS, Attach.
type StartMeta struct {
	NetNS         bool               `json:"netns,omitempty"`
	Attach        bool               `json:"attach,omitempty"`
	AttachRequest task.AttachRequest `json:"attachRequest,omitzero"`
}

// Target is the body of requests about one task, one exec or one descriptor.
type Target struct {
	ID      string             `json:"id"`
	ExecID  string             `json:"execId,omitempty"`
	Signal  int                `json:"signal,omitempty"`
	Timeout time.Duration      `json:"timeout,omitempty"`
	Width   int                `json:"width,omitempty"`
	Height  int                `json:"height,omitempty"`
	Force   bool               `json:"force,omitempty"`
	Wait    task.WaitCondition `json:"wait,omitempty"`
	Seq     uint64             `json:"seq,omitempty"`
}

// Update is the body of OpUpdate.
type Update struct {
	ID      string             `json:"id"`
	Request task.UpdateRequest `json:"request"`
}

// Attach is the body of OpAttach and OpAttachExec.
type Attach struct {
	ID      string             `json:"id"`
	Request task.AttachRequest `json:"request"`
}

// OpenRoot is the body of OpOpenRoot.
type OpenRoot struct {
	ID   string    `json:"id"`
	Root task.Root `json:"root"`
}

// Upgrade is the body of OpUpgrade.
type Upgrade struct {
	// Program is the path of the wherry-runtime that the helpers are to be.
	Program string `json:"program"`
}

// Upgraded is its answer: what became of each helper. A supervisor that says
// it is replaced ends the connection, and answers on a new one.
type Upgraded struct {
	Helpers []UpgradedHelper `json:"helpers"`
}

// UpgradedHelper is one helper's outcome.
type UpgradedHelper struct {
	Helper string `json:"helper"`
	// Replaced: it is, or becomes now, the program asked for.
	Replaced bool `json:"replaced,omitempty"`
	// Refused is why it goes on as it was; "" otherwise.
	Refused string `json:"refused,omitempty"`
}

// Sections joins byte strings so that Split finds them again.
func Sections(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	b := make([]byte, 0, n)
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// Split undoes Sections; want is the number of parts.
func Split(b []byte, want int) ([][]byte, error) {
	parts := make([][]byte, 0, want)
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errors.New("malformed sections")
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if uint64(n) > uint64(len(b)) {
			return nil, errors.New("malformed sections")
		}
		parts = append(parts, b[:n:n])
		b = b[n:]
	}
	if len(parts) != want {
		return nil, fmt.Errorf("%d sections instead of %d", len(parts), want)
	}
	return parts, nil
}

// Error is an error on its way: the text and what callers branch on.
type Error struct {
	Class   string `json:"class,omitempty"`
	Message string `json:"message"`
	// StartCode is the exit code of a task.StartError, or 0.
	StartCode int `json:"startCode,omitempty"`
}

type class struct {
	name string
	err  error
}

// classes are the errdefs classes that travel, in order of precedence.
func classes() []class {
	return []class{
		{"cancelled", context.Canceled}, {"deadline", context.DeadlineExceeded}, {"invalid", errdefs.ErrInvalidArgument},
		{"not-found", errdefs.ErrNotFound}, {"exists", errdefs.ErrAlreadyExists}, {"denied", errdefs.ErrPermissionDenied},
		{"exhausted", errdefs.ErrResourceExhausted}, {"precondition", errdefs.ErrFailedPrecondition}, {"conflict", errdefs.ErrConflict},
		{"aborted", errdefs.ErrAborted}, {"out-of-range", errdefs.ErrOutOfRange}, {"not-implemented", errdefs.ErrNotImplemented},
		{"internal", errdefs.ErrInternal}, {"unavailable", errdefs.ErrUnavailable}, {"data-loss", errdefs.ErrDataLoss},
		{"unauthenticated", errdefs.ErrUnauthenticated}, {"not-modified", errdefs.ErrNotModified}, {"unknown", errdefs.ErrUnknown},
	}
}

// EncodeError makes the body of a Failure.
func EncodeError(err error) Error {
	e := Error{Message: err.Error()}
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			e.Class = c.name
			break
		}
	}
	var start *task.StartError
	if errors.As(err, &start) {
		e.Class, e.StartCode = "invalid", start.Code
	}
	return e
}

// Err makes an error of it, with the same text and class.
func (e Error) Err() error {
	if e.StartCode != 0 {
		return &task.StartError{Code: e.StartCode, Msg: e.Message}
	}
	r := &remoteError{msg: e.Message}
	for _, c := range classes() {
		if c.name == e.Class {
			r.class = c.err
		}
	}
	return r
}

type remoteError struct {
	msg   string
	class error
}

func (e *remoteError) Error() string { return e.msg }
func (e *remoteError) Unwrap() error { return e.class }
