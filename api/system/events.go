package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/events"
)

// Events answers GET /events.
func (h Handlers) Events(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	since, err := route.ParseTime(r.FormValue("since"), now)
	if err != nil {
		return err
	}
	until, err := route.ParseTime(r.FormValue("until"), now)
	if err != nil {
		return err
	}
	if !since.IsZero() && !until.IsZero() && since.After(until) {
		return fmt.Errorf("`since` time (%s) cannot be after `until` time (%s): %w", r.FormValue("since"), r.FormValue("until"), errdefs.ErrInvalidArgument)
	}
	filters, err := route.ParseFilters(r)
	if err != nil {
		return err
	}
	ch := h.o.Events.Subscribe(r.Context(), since, until, eventFilter(filters))
	mt := eventFormat(r)
	w.Header().Set("Content-Type", mt)
	w.WriteHeader(http.StatusOK)
	return streamEvents(w, ch, mt == types.MediaTypeJSONSequence, !route.AtLeast(r, "1.52"), route.Bool(r, "timing"))
}

// streamEvents writes what the channel holds, flushing whenever it is empty.
func streamEvents(w http.ResponseWriter, ch <-chan apievents.Message, sequence, legacy, timing bool) error {
	rc := http.NewResponseController(w)
	if err := rc.Flush(); err != nil {
		return err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for m := range ch {
		buf.Reset()
		if sequence {
			buf.WriteByte(0x1e)
		}
		if _, has := m.Actor.Attributes[events.Timing]; has && !timing {
			m.Actor.Attributes = maps.Clone(m.Actor.Attributes) // others read it, too
			delete(m.Actor.Attributes, events.Timing)
		}
		var v any = m
		if legacy {
			v = withLegacyFields(m)
		}
		if err := enc.Encode(v); err != nil {
			return err
		}
		if _, err := w.Write(buf.Bytes()); err != nil {
			return err
		}
		if len(ch) > 0 {
			continue
		}
		if err := rc.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// legacyMessage is what versions before 1.52 send.
type legacyMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	apievents.Message
}

func withLegacyFields(m apievents.Message) legacyMessage {
	l := legacyMessage{Message: m}
	switch m.Type {
	case apievents.ContainerEventType:
		l.Status, l.ID, l.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case apievents.ImageEventType:
		l.Status, l.ID = string(m.Action), m.Actor.ID
	}
	return l
}

// eventFormat chooses the media type by the Accept header.
func eventFormat(r *http.Request) string {
	var known []string
	if route.AtLeast(r, "1.52") {
		known = append(known, types.MediaTypeNDJSON, types.MediaTypeJSONSequence)
	}
	if route.AtLeast(r, "1.53") {
		known = append(known, types.MediaTypeJSONLines)
	}
	for accept := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		mt, _, err := mime.ParseMediaType(accept)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			continue
		}
		if mt == types.MediaTypeJSON {
			break
		}
		if slices.Contains(known, mt) {
			return mt
		}
	}
	return types.MediaTypeJSON
}

// eventFilter returns what decides whether a client sees an event; nil if all.
func eventFilter(f route.Filters) func(apievents.Message) bool {
	if len(f) == 0 {
		return nil
	}
	return func(m apievents.Message) bool {
		return f.Exact("type", string(m.Type)) &&
			f.Exact("scope", m.Scope) &&
			f.Labels("label", m.Actor.Attributes) &&
			f.Func("event", func(v string) bool { return matchAction(m.Action, v) }) &&
			matchActor(f, m, "container", apievents.ContainerEventType) &&
			matchActor(f, m, "daemon", apievents.DaemonEventType) &&
			matchActor(f, m, "plugin", apievents.PluginEventType) &&
			matchActor(f, m, "volume", apievents.VolumeEventType) &&
			matchActor(f, m, "network", apievents.NetworkEventType) &&
			matchActor(f, m, "service", apievents.ServiceEventType) &&
			matchActor(f, m, "node", apievents.NodeEventType) &&
			matchActor(f, m, "secret", apievents.SecretEventType) &&
			matchActor(f, m, "config", apievents.ConfigEventType) &&
			f.Func("image", func(v string) bool { return matchImage(m, v) })
	}
}

// matchAction also accepts the part before the colon: exec_create, health_status.
func matchAction(a apievents.Action, want string) bool {
	prefix, _, _ := strings.Cut(string(a), ":")
	return string(a) == want || prefix == want
}

// matchActor accepts the beginning of an ID or of a name.
func matchActor(f route.Filters, m apievents.Message, name string, typ apievents.Type) bool {
	if !f.Has(name) {
		return true
	}
	return m.Type == typ && f.Func(name, func(v string) bool {
		return strings.HasPrefix(m.Actor.ID, v) || strings.HasPrefix(m.Actor.Attributes["name"], v)
	})
}

// matchImage compares with the image of a container, or the image itself, with and without tag.
func matchImage(m apievents.Message, want string) bool {
	name := m.Actor.Attributes["image"]
	if m.Type == apievents.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	for _, have := range []string{m.Actor.ID, name} {
		if have != "" && (have == want || withoutTag(have) == want) {
			return true
		}
	}
	return false
}

func withoutTag(ref string) string {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
