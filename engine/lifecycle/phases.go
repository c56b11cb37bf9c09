package lifecycle

import (
	"context"
	"log/slog"
	"time"

	"github.com/wherry-engine/wherry/container"
)

// phases measures where the time of a start goes, for the debug log.
type phases struct {
	last  time.Time
	attrs []any
}

func newPhases() *phases { return &phases{last: time.Now()} }

func (p *phases) end(name string) {
	now := time.Now()
	p.attrs = append(p.attrs, slog.Duration(name, now.Sub(p.last)))
	p.last = now
}

func (p *phases) log(ctx context.Context, log *slog.Logger, id container.ID) {
	log.DebugContext(ctx, "start", append([]any{slog.String("container", string(id))}, p.attrs...)...)
}
