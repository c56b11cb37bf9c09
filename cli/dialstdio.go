package cli

import (
	"context"
	"io"

	"github.com/spf13/pflag"
)

func dialStdioCommand() command {
	return command{
		group: "system", name: "dial-stdio", hidden: true,
		short: "Join standard input and output to the daemon (used by ssh connections)",
		args:  noArgs(),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, _ []string) error { return a.dialStdio(ctx) }
		},
	}
}

// dialStdio joins the standard streams with a connection. The end of one
// direction is passed on; the end of the daemon's ends the program.
func (a *app) dialStdio(ctx context.Context) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	conn, err := cl.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // both directions are done
	go func() {
		_, _ = io.Copy(conn, a.in)
		if hc, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = hc.CloseWrite()
		}
	}()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(a.out, conn)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
