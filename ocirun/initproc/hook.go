package initproc

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// hooks lets the runtime run its hooks in the host's namespaces, then runs
// those that belong into the container's but before its root is entered.
func (s *setup) hooks() error {
	if s.cfg.HostHooks {
		if err := s.conn.Send(wire.KindHooks, nil); err != nil {
			return err
		}
		if err := s.await(); err != nil {
			return err
		}
	}
	return runHooks("createContainer", s.cfg.CreateContainer)
}

// await blocks until the runtime says Continue.
func (s *setup) await() error {
	m, err := s.conn.Receive()
	if err != nil {
		return err
	}
	if m.Kind != wire.KindContinue {
		return fmt.Errorf("unexpected message %d", m.Kind)
	}
	return nil
}

func runHooks(name string, hooks []wire.Hook) error {
	for i := range hooks {
		if err := RunHook(context.Background(), &hooks[i]); err != nil {
			return fmt.Errorf("%s hook %d: %w", name, i, err)
		}
	}
	return nil
}

// RunHook runs one hook and waits for it, no longer than it may take.
func RunHook(ctx context.Context, h *wire.Hook) error {
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(h.State)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := timerslack.Start(cmd.Run)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: did not end within %d s", h.Path, h.Timeout)
	}
	if err != nil {
		return fmt.Errorf("%s: %w, output: %q", h.Path, err, tail(out.Bytes()))
	}
	return nil
}

func tail(b []byte) []byte {
	const keep = 4096
	if len(b) > keep {
		b = b[len(b)-keep:]
	}
	return b
}
