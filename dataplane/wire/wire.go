// Package wire is the protocol between the daemon and the net helper: what the
// daemon wants each sandbox to have, and how that travels over a unix stream
// socket with descriptors beside it.
//
// The daemon sends requests, one at a time; the helper answers each. A request
// that carries descriptors is preceded by "files" messages, which are not
// answered, because one message carries at most MaxFiles.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// Version of the protocol; the helper also serves the one before.
	Version    = 1
	MinVersion = 1
	// Socket is the helper's socket below the exec root.
	Socket = "net.sock"
	// StateDir holds the helper's state files, below the exec root (a tmpfs).
	StateDir = "net"
	// MaxFiles bounds the descriptors of one message (the kernel's limit is 253).
	MaxFiles = 200

	maxFrame = 8 << 20
)

// Operations.
const (
	OpHello = "hello" // first on a connection; the answer holds the IDs of all sandboxes
	OpFiles = "files" // descriptors for the request that follows; not answered
	OpPut   = "put"   // make or change a sandbox; descriptors: those of new ports, then UDP and TCP of a new DNS
	OpDrop  = "drop"  // forget a sandbox; on the answer its ports are free
)

// Request is what the daemon sends.
type Request struct {
	Op      string   `json:"op"`
	Version int      `json:"version,omitempty"`
	ID      string   `json:"id,omitempty"`
	Sandbox *Sandbox `json:"sandbox,omitempty"`
}

// Response is what the helper answers.
type Response struct {
	Version   int      `json:"version,omitempty"`
	Error     string   `json:"error,omitempty"`
	Sandboxes []string `json:"sandboxes,omitempty"`
}

// Sandbox is everything the helper does for one sandbox.
type Sandbox struct {
	ID string `json:"id"`
	// Ports that the helper has and that are not listed any more end.
	Ports []Port `json:"ports,omitempty"`
	DNS   *DNS   `json:"dns,omitempty"`
	// NewDNS: the sockets of the name server come along; else they stay.
	NewDNS    bool       `json:"newDns,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Port is a reserved port of the host and where its connections go.
type Port struct {
	Proto  uint8          `json:"proto"`
	Host   netip.AddrPort `json:"host"`
	Target netip.AddrPort `json:"target"`
	// New: its socket comes along; else the helper has it.
	New bool `json:"new,omitempty"`
}

// DNS says how the names of a sandbox that are no containers are answered.
type DNS struct {
	// Servers to ask; none means those of the host, as they are at that time.
	Servers []netip.Addr `json:"servers,omitempty"`
	// NoForward keeps questions inside (internal networks).
	NoForward bool `json:"noForward,omitempty"`
}

// Endpoint is the presence of a sandbox in a network, with its names there.
type Endpoint struct {
	Network     string `json:"network"` // ID
	NetworkName string `json:"networkName"`
	// NoNames is a network without name service (the default bridge).
	NoNames bool       `json:"noNames,omitempty"`
	IPv4    netip.Addr `json:"ipv4,omitzero"`
	IPv6    netip.Addr `json:"ipv6,omitzero"`
	// Names others find the sandbox by; the first is for reverse look-ups.
	Names []string `json:"names,omitempty"`
	// Links are further names of others, known to this sandbox alone.
	Links map[string]string `json:"links,omitempty"`
}

// Conn frames messages. It is not safe for concurrent use.
type Conn struct {
	c   *net.UnixConn
	oob []byte
}

// NewConn wraps a connected stream socket.
func NewConn(c *net.UnixConn) *Conn {
	return &Conn{c: c, oob: make([]byte, unix.CmsgSpace(4*MaxFiles))}
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Write sends one message; the descriptors stay the caller's.
func (c *Conn) Write(v any, files ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame || len(files) > MaxFiles {
		return errors.New("message is too large")
	}
	frame := append(binary.BigEndian.AppendUint32(make([]byte, 0, len(b)+4), uint32(len(b))), b...)
	if len(files) == 0 {
		_, err = c.c.Write(frame)
		return err
	}
	n, _, err := c.c.WriteMsgUnix(frame, unix.UnixRights(files...), nil)
	if err == nil && n < len(frame) {
		_, err = c.c.Write(frame[n:])
	}
	return err
}

// Read receives one message into v; its descriptors are the caller's.
func (c *Conn) Read(v any) (files []int, err error) {
	defer func() {
		if err != nil {
			CloseAll(files)
			files = nil
		}
	}()
	var head [4]byte
	n, oobn, flags, _, err := c.c.ReadMsgUnix(head[:], c.oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if files, err = parseRights(c.oob[:oobn]); err != nil {
		return files, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return files, errors.New("descriptors were lost")
	}
	if _, err := io.ReadFull(c.c, head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return files, fmt.Errorf("message of %d bytes is too large", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c.c, b); err != nil {
		return files, err
	}
	return files, json.Unmarshal(b, v)
}

func parseRights(oob []byte) (files []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		files = append(files, fds...)
	}
	return files, nil
}

// CloseAll closes descriptors.
func CloseAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd)
	}
}
