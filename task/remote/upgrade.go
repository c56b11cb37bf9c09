package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task/wire"
)

// farewell is how long a supervisor may take to become another program, which
// ends the connection.
const farewell = 10 * time.Second

// Upgrade asks the helpers to become the program opts.Runtime, in their places
// and without anybody noticing, and returns a connection to the supervisor that
// then runs: this one, or a new one instead of it. Helpers that cannot go on as
// they are: an error is logged, and they do.
func (c *Client) Upgrade(ctx context.Context, opts Options) (*Client, error) {
	var up wire.Upgraded
	err := c.do(ctx, wire.OpUpgrade, wire.Upgrade{Program: opts.Runtime}, &up)
	if errdefs.IsNotImplemented(err) || errdefs.IsFailedPrecondition(err) {
		// Builds that do not know the question want a Hello before anything else.
		c.log.Warn("the helpers are of a build that cannot be upgraded in place; they go on until no container runs", "err", err)
		return c, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("upgrade the helpers: %w", err), c.Close())
	}
	again := false
	for _, h := range up.Helpers {
		switch {
		case h.Refused != "":
			c.log.Error("a helper is not upgraded and goes on as it was", "role", h.Helper, "why", h.Refused)
		case h.Replaced:
			c.log.Info("helper upgraded in place", "role", h.Helper)
			again = again || h.Helper == "supervisor"
		}
	}
	if !again {
		return c, nil
	}
	late := time.NewTimer(farewell)
	defer late.Stop()
	select {
	case <-c.Lost():
	case <-late.C: // it could not be executed, and an older supervisor does not say so
		_ = c.Close()
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.Close())
	}
	return Ensure(ctx, opts)
}
