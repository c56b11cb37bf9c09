package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Output receives what a classic build reports. Calls do not overlap.
type Output interface {
	// Stream is text for the user.
	Stream(text string) error
	// Aux is a message for programs; id may be empty.
	Aux(id string, v any) error
}

// traceID marks BuildKit's own progress messages.
const traceID = "moby.buildkit.trace"

// Build runs a build and returns the ID of its image. Errors of the Dockerfile
// or its steps are returned after their output was reported.
func (b *Builder) Build(ctx context.Context, req Request, out Output) (string, error) {
	run, written, err := b.build(ctx)
	if err != nil {
		return "", err
	}
	defer written()
	ctx, end := b.cancellable(ctx, req.BuildID)
	defer end()
	ref := identity.NewID()
	solve, endSession, err := req.solve(ctx, run, ref)
	if err != nil {
		return "", err
	}
	defer endSession()

	resp, err := b.report(ctx, run, req, solve, out)
	if err != nil {
		return "", err
	}
	id := resp.ExporterResponse["containerimage.digest"]
	if err := out.Aux("", map[string]string{"ID": id}); err != nil {
		return "", err
	}
	if req.BuildKit {
		return id, nil
	}
	return id, success(out, id, solve.Exporters[0].Attrs["name"])
}

// report runs a build and shows its progress in the words the client asked for.
func (b *Builder) report(ctx context.Context, run *running, req Request, solve *controlapi.SolveRequest, out Output) (*controlapi.SolveResponse, error) {
	if req.BuildKit {
		return b.solve(ctx, run, solve, func(s *controlapi.StatusResponse) error {
			raw, err := proto.Marshal(s)
			if err != nil {
				return err
			}
			return out.Aux(traceID, raw)
		})
	}
	lines := newSteps(out)
	defer run.plans.expect(solve.Session, lines.setPlan)()
	resp, err := b.solve(ctx, run, solve, lines.show)
	if shown := lines.finish(err == nil); err == nil {
		err = shown
	}
	return resp, err
}

// success ends the output as scripts expect it.
func success(out Output, id, names string) error {
	short := strings.TrimPrefix(id, "sha256:")
	if len(short) > 12 {
		short = short[:12]
	}
	err := out.Stream("Successfully built " + short + "\n")
	for name := range strings.SplitSeq(names, ",") {
		if name != "" {
			name = strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
			err = errors.Join(err, out.Stream("Successfully tagged "+name+"\n"))
		}
	}
	return err
}

// solve runs the request and delivers its status messages in order.
func (b *Builder) solve(ctx context.Context, run *running, req *controlapi.SolveRequest, show func(*controlapi.StatusResponse) error) (*controlapi.SolveResponse, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	statusDone := make(chan error, 1)
	go func() {
		err := run.controller.Status(&controlapi.StatusRequest{Ref: req.Ref}, &statusStream{ctx: ctx, show: show})
		if err != nil {
			cancel(err) // the client went away
		}
		statusDone <- err
	}()
	resp, err := run.controller.Solve(ctx, req)
	if err != nil {
		// Status waits for a job that may never have been made.
		cancel(err)
		<-statusDone
		return nil, cleanError(err)
	}
	if err := <-statusDone; err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return resp, nil
}

// cleanError takes the wrapping that means nothing to users off, and makes the
// exit code of a failed step known.
func cleanError(err error) error {
	c := &stepError{error: err, msg: err.Error()}
	for _, p := range []string{"failed to solve: ", "rpc error: code = Unknown desc = "} {
		c.msg = strings.TrimPrefix(c.msg, p)
	}
	var exit *gwpb.ExitError
	if errors.As(err, &exit) {
		c.code = int(exit.ExitCode)
	}
	return c
}

// stepError is why a build failed.
type stepError struct {
	error
	msg  string
	code int
}

func (e *stepError) Error() string { return e.msg }
func (e *stepError) Unwrap() error { return e.error }

// ExitStatus is the exit code of the step, or 1 if none failed.
func (e *stepError) ExitStatus() int {
	if e.code == 0 {
		return 1
	}
	return e.code
}

// statusStream is the server side of a Status call made in process.
type statusStream struct {
	ctx  context.Context //nolint:containedctx // grpc's own shape
	show func(*controlapi.StatusResponse) error
}

func (s *statusStream) Context() context.Context     { return s.ctx }
func (s *statusStream) SetHeader(metadata.MD) error  { return nil }
func (s *statusStream) SendHeader(metadata.MD) error { return nil }
func (s *statusStream) SetTrailer(metadata.MD)       {}
func (s *statusStream) RecvMsg(any) error            { return io.EOF }
func (s *statusStream) Send(m *controlapi.StatusResponse) error {
	return s.show(m)
}

func (s *statusStream) SendMsg(m any) error {
	r, ok := m.(*controlapi.StatusResponse)
	if !ok {
		return fmt.Errorf("unexpected status message %T", m)
	}
	return s.show(r)
}
