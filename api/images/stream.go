package images

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// stream writes progress as JSON lines. It implements image.Progress. Nothing
// is sent before the first message, so that an early error has its own status.
type stream struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	enc   *json.Encoder
	begun bool
	// quiet drops progress and keeps final lines.
	quiet bool
}

func newStream(w http.ResponseWriter) *stream {
	s := &stream{w: w, enc: json.NewEncoder(w)}
	s.enc.SetEscapeHTML(false)
	return s
}

// message is one line, with the members in the order clients are used to.
type message struct {
	Status   string   `json:"status,omitempty"`
	Progress *numbers `json:"progressDetail,omitempty"`
	Bar      string   `json:"progress,omitempty"`
	ID       string   `json:"id,omitempty"`
	Stream   string   `json:"stream,omitempty"`
	Error    *failure `json:"errorDetail,omitempty"`
	Text     string   `json:"error,omitempty"`
	Aux      any      `json:"aux,omitempty"`
}

type numbers struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type failure struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

func (s *stream) send(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
	}
	// A client that went away ends the request's context.
	_ = s.enc.Encode(m)
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}

// Update implements image.Progress.
func (s *stream) Update(id, action string, current, total int64) {
	if s.quiet {
		return
	}
	s.send(message{Status: action, ID: id, Progress: &numbers{current, total}, Bar: bar(current, total)})
}

// Status implements image.Progress.
func (s *stream) Status(id, text string) {
	m := message{Status: text, ID: id}
	if id != "" {
		if s.quiet {
			return
		}
		m.Progress = &numbers{}
	}
	if id != "" && strings.HasPrefix(text, "Pulling from ") {
		m.Progress = nil
	}
	s.send(m)
}

// Aux implements image.Progress.
func (s *stream) Aux(v any) { s.send(message{Progress: &numbers{}, Aux: v}) }

// end reports an error inside the stream once it has begun.
func (s *stream) end(err error) error {
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	if err == nil || !begun {
		return err
	}
	text := plainText(err)
	s.send(message{Error: &failure{Message: text}, Text: text})
	return nil
}

// plainText is the error without the name of its class.
func plainText(err error) string {
	msg := err.Error()
	if class := errdefs.Resolve(err); class != nil {
		if short, ok := strings.CutSuffix(msg, ": "+class.Error()); ok && short != "" {
			return short
		}
	}
	return msg
}

const barWidth = 50

// bar draws progress for clients that do not draw it themselves.
func bar(current, total int64) string {
	if total <= 0 {
		return units.HumanSize(float64(current))
	}
	done := int(min(current, total) * barWidth / total)
	line := strings.Repeat("=", done)
	if done < barWidth {
		line += ">" + strings.Repeat(" ", barWidth-done-1)
	}
	return fmt.Sprintf("[%s]  %s/%s", line, units.HumanSize(float64(current)), units.HumanSize(float64(total)))
}
