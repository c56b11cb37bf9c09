package lifecycle

import (
	"net"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/handoff"
)

// closedConn is hijacked after its client has gone, and its socket with it.
type closedConn struct{ net.Conn }

func (c closedConn) Hijack(bool, bool) (container.Stream, error) {
	return container.Stream{Conn: c.Conn}, c.Close()
}

// TestExecWithoutConnection wants an exec that could not be attached to be over.
func TestExecWithoutConnection(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	id := create(t, e, request("one", "sleep", "9"))
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ex, err := e.ExecCreate(t.Context(), id, apicontainer.ExecCreateRequest{Cmd: []string{"true"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, theirs, err := handoff.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := e.ExecStart(t.Context(), ex, container.ExecStartRequest{Conn: closedConn{conn}}); err == nil {
		t.Error("a connection without a socket was given away")
	}
	if got, err := e.ExecInspect(t.Context(), ex); err != nil || got.Running || got.ExitCode == nil {
		t.Errorf("inspect: %+v %v", got, err)
	}
}
