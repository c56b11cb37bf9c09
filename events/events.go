// Package events is the engine's event bus: what happened, for `events`, for
// SDKs and for the engine's own subsystems. The last events are kept for
// `since`; nothing is persisted.
package events

import (
	"context"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

// Timing is the attribute that tells where the time of an operation went. It is
// shown to those only who ask for it.
const Timing = "timing"

// Publisher accepts events; Publish never blocks.
type Publisher interface {
	Publish(typ apievents.Type, action apievents.Action, actorID string, attrs map[string]string)
}

// Subscriber delivers events.
type Subscriber interface {
	// Subscribe replays kept events between since and until (zero: none), then
	// delivers new ones until the context ends or until passes. A subscriber that
	// does not read loses its subscription: the channel is closed.
	Subscribe(ctx context.Context, since, until time.Time, match func(apievents.Message) bool) <-chan apievents.Message
}
