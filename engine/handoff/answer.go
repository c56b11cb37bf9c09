package handoff

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
)

// WriteFrame writes output as clients expect it on an attached connection.
func WriteFrame(w io.Writer, stream byte, p []byte, framed bool) error {
	if framed {
		n := len(p)
		head := []byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		p = append(head, p...)
	}
	_, err := w.Write(p)
	return err
}

// WriteWait answers a wait whose connection was taken from the API server, in
// the form of the supervisor's answer: one HTTP chunk and the last.
func WriteWait(f *os.File, r container.WaitResult) {
	resp := apicontainer.WaitResponse{StatusCode: int64(r.ExitCode)}
	if r.Error != "" {
		resp.Error = &apicontainer.WaitExitError{Message: r.Error}
	}
	body, err := json.Marshal(resp)
	if err != nil {
		return
	}
	body = append(body, '\n')
	// Nobody to tell if the client is gone.
	_, _ = fmt.Fprintf(f, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
}
