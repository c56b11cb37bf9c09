package container

import (
	"net"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CreateRequest asks for a container, as the API's create does.
type CreateRequest struct {
	Name       string // empty: a random one
	Platform   *ocispec.Platform
	Config     *apicontainer.Config
	HostConfig *apicontainer.HostConfig
	Networking *network.NetworkingConfig
}

// Created is the answer to CreateRequest.
type Created struct {
	ID       ID
	Warnings []string
}

// StopRequest stops or restarts. Zero values mean the container's own signal
// and timeout.
type StopRequest struct {
	Signal  string
	Timeout *int // seconds; negative waits for ever
}

// DeleteRequest removes a container.
type DeleteRequest struct {
	Force   bool // kill it first
	Volumes bool // anonymous volumes too
	Link    bool // the name is of a link, which alone is removed
}

// ListRequest selects containers.
type ListRequest struct {
	All     bool // not only running ones
	Limit   int  // the last so many, of any state; 0: no limit
	Size    bool // with sizes
	Filters map[string][]string
}

// LogsRequest reads output.
type LogsRequest struct {
	Stdout, Stderr bool
	Follow         bool
	Since, Until   time.Time
	Tail           int // last lines; negative: all
}

// Conn gives the engine a client's connection once the request is known to be
// good, so that errors before it are ordinary answers.
type Conn interface {
	// Hijack sends the head of the answer, unless deferHead, and returns the
	// connection and what was read from it beyond the request. tty tells
	// which content type is due. With deferHead the head is returned instead,
	// for whoever serves the connection to send it when all stands.
	Hijack(tty, deferHead bool) (Stream, error)
}

// Stream is a hijacked connection.
type Stream struct {
	net.Conn
	Head     []byte // to be sent first; empty if it was
	Buffered []byte // input already read
}

// AttachRequest attaches a connection to the streams of a container.
type AttachRequest struct {
	Stdin, Stdout, Stderr bool
	Stream                bool   // follow; else only Logs
	Logs                  bool   // replay the log first
	DetachKeys            string // as written by the user; empty: the default
	Raw                   bool   // never multiplexed (websockets)
	Conn                  Conn
}

// WaitCondition says what a wait request waits for.
type WaitCondition = apicontainer.WaitCondition

// WaitRequest waits for a container.
type WaitRequest struct {
	Condition WaitCondition
	// Begin sends the head of the answer: the wait stands.
	Begin func()
	// Hand hijacks the connection after Begin's head was sent with chunked
	// encoding; nil if the connection cannot be given away.
	Hand func() (net.Conn, error)
}

// WaitResult is how a wait ended. Handed is set when the connection was given
// away and nothing is to be answered.
type WaitResult struct {
	Handed   bool
	ExitCode int
	Error    string
}

// ExecStartRequest runs a created exec.
type ExecStartRequest struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
	Conn        Conn
	// Again takes up the streams of an exec that runs.
	Again bool
}

// PutRequest unpacks an archive into a container.
type PutRequest struct {
	Path string
	// NoOverwriteDirNonDir refuses to replace a directory by a file or the reverse.
	NoOverwriteDirNonDir bool
	// CopyUIDGID gives everything to the container's user; else the owners in
	// the archive are kept.
	CopyUIDGID bool
}

// CommitRequest makes an image of a container.
type CommitRequest struct {
	Container string
	Repo, Tag string
	Comment   string
	Author    string
	Pause     bool
	Changes   []string
	Config    *apicontainer.Config // merged over the container's
}
