package helpers

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// Start implements task.Service.
func (c *Connection) Start(ctx context.Context, req task.StartRequest, files task.StartFiles) (task.Status, error) {
	return with(ctx, c, func(cl Client) (task.Status, error) { return cl.Start(ctx, req, files) })
}

// Exec implements task.Service.
func (c *Connection) Exec(ctx context.Context, req task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	return with(ctx, c, func(cl Client) (task.ExecStatus, error) { return cl.Exec(ctx, req, conn) })
}

// Signal implements task.Service.
func (c *Connection) Signal(ctx context.Context, id, execID string, signal int) error {
	return c.use(ctx, func(cl Client) error { return cl.Signal(ctx, id, execID, signal) })
}

// Stop implements task.Service.
func (c *Connection) Stop(ctx context.Context, id string, signal int, timeout time.Duration) (task.Status, error) {
	return with(ctx, c, func(cl Client) (task.Status, error) { return cl.Stop(ctx, id, signal, timeout) })
}

// Update implements task.Service.
func (c *Connection) Update(ctx context.Context, id string, req task.UpdateRequest) error {
	return c.use(ctx, func(cl Client) error { return cl.Update(ctx, id, req) })
}

// Pause implements task.Service.
func (c *Connection) Pause(ctx context.Context, id string) error {
	return c.use(ctx, func(cl Client) error { return cl.Pause(ctx, id) })
}

// Resume implements task.Service.
func (c *Connection) Resume(ctx context.Context, id string) error {
	return c.use(ctx, func(cl Client) error { return cl.Resume(ctx, id) })
}

// Resize implements task.Service.
func (c *Connection) Resize(ctx context.Context, id, execID string, width, height int) error {
	return c.use(ctx, func(cl Client) error { return cl.Resize(ctx, id, execID, width, height) })
}

// Attach implements task.Service.
func (c *Connection) Attach(ctx context.Context, id string, req task.AttachRequest, conn *os.File) error {
	return c.use(ctx, func(cl Client) error { return cl.Attach(ctx, id, req, conn) })
}

// HandWait implements task.Service.
func (c *Connection) HandWait(ctx context.Context, id string, cond task.WaitCondition, conn *os.File) error {
	return c.use(ctx, func(cl Client) error { return cl.HandWait(ctx, id, cond, conn) })
}

// Status implements task.Service.
func (c *Connection) Status(ctx context.Context, id string) (task.Status, error) {
	return with(ctx, c, func(cl Client) (task.Status, error) { return cl.Status(ctx, id) })
}

// ExecStatus implements task.Service.
func (c *Connection) ExecStatus(ctx context.Context, id, execID string) (task.ExecStatus, error) {
	return with(ctx, c, func(cl Client) (task.ExecStatus, error) { return cl.ExecStatus(ctx, id, execID) })
}

// OpenRoot implements task.Service.
func (c *Connection) OpenRoot(ctx context.Context, id string, root task.Root) (*os.File, error) {
	return with(ctx, c, func(cl Client) (*os.File, error) { return cl.OpenRoot(ctx, id, root) })
}

// CloseRoot implements task.Service.
func (c *Connection) CloseRoot(ctx context.Context, id string) error {
	return c.use(ctx, func(cl Client) error { return cl.CloseRoot(ctx, id) })
}

// NetNS implements task.Service.
func (c *Connection) NetNS(ctx context.Context, id string) (*os.File, error) {
	return with(ctx, c, func(cl Client) (*os.File, error) { return cl.NetNS(ctx, id) })
}

// NewNetNS implements task.Service.
func (c *Connection) NewNetNS(ctx context.Context, req task.NetNSRequest) (*os.File, error) {
	return with(ctx, c, func(cl Client) (*os.File, error) { return cl.NewNetNS(ctx, req) })
}

// Delete implements task.Service.
func (c *Connection) Delete(ctx context.Context, id string, force bool) error {
	return c.use(ctx, func(cl Client) error { return cl.Delete(ctx, id, force) })
}

// Events implements task.Service. The channel ends with the connection.
func (c *Connection) Events(ctx context.Context) (<-chan task.Event, error) {
	return with(ctx, c, func(cl Client) (<-chan task.Event, error) { return cl.Events(ctx) })
}

// Ack implements task.Service.
func (c *Connection) Ack(ctx context.Context, seq uint64) error {
	return c.use(ctx, func(cl Client) error { return cl.Ack(ctx, seq) })
}

// Shutdown implements task.Service. It waits for no first connection: a daemon that
// fails before it has one has nothing to end.
func (c *Connection) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	never := c.client == nil
	c.mu.Unlock()
	if never {
		return fmt.Errorf("no supervisor has been asked for: %w", errdefs.ErrUnavailable)
	}
	return c.use(ctx, func(cl Client) error { return cl.Shutdown(ctx) })
}
