// Package progress shows the JSON message streams of pull, push, load, import
// and build: plain lines, or bars redrawn in place on a terminal.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// Options say where and how to show.
type Options struct {
	Out io.Writer
	// Terminal draws bars in place; Width is its width in characters.
	Terminal bool
	Width    uint
	// Aux is called with out-of-band data, such as a built image's ID.
	Aux func(json.RawMessage)
}

// Error is an error message of the stream; Code is 0 or that of a build step.
type Error struct {
	Code    int
	Message string
}

// Error returns the daemon's message.
func (e *Error) Error() string { return e.Message }

// message is jsonstream.Message, with the older plain error key.
type message struct {
	jsonstream.Message
	Plain string `json:"error"`
	Time  int64  `json:"time"`
}

// Show copies the stream to the display until its end. The stream's own error
// is returned as *Error.
func Show(r io.Reader, o Options) error {
	d := &display{o: o, lines: map[string]int{}, started: time.Now()}
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.Aux != nil {
			if o.Aux != nil {
				o.Aux(*m.Aux)
			}
			continue
		}
		if m.Error != nil {
			return &Error{Code: m.Error.Code, Message: m.Error.Message}
		}
		if m.Plain != "" {
			return &Error{Message: m.Plain}
		}
		if err := d.show(m); err != nil {
			return err
		}
	}
}

type display struct {
	o       Options
	lines   map[string]int // ID → line number from the top
	started time.Time
}

func (d *display) show(m message) error {
	bar := d.bar(m.Progress)
	if bar != "" && !d.o.Terminal {
		return nil
	}
	if m.ID == "" || !d.o.Terminal {
		if m.ID == "" {
			clear(d.lines)
		}
		_, err := io.WriteString(d.o.Out, text(m, bar))
		return err
	}
	if m.Progress == nil && m.Status == "" && m.Stream == "" {
		return nil
	}
	line, known := d.lines[m.ID]
	if !known {
		line = len(d.lines)
		d.lines[m.ID] = line
		_, err := fmt.Fprintf(d.o.Out, "%s\n", strings.TrimSuffix(text(m, bar), "\n"))
		return err
	}
	up := len(d.lines) - line
	_, err := fmt.Fprintf(d.o.Out, "\x1b[%dA\x1b[2K\r%s\x1b[%dB\r", up, strings.TrimSuffix(text(m, bar), "\n"), up)
	return err
}

func text(m message, bar string) string {
	if m.Stream != "" {
		return m.Stream
	}
	var b strings.Builder
	if m.ID != "" {
		b.WriteString(m.ID)
		b.WriteString(": ")
	}
	b.WriteString(m.Status)
	if bar != "" {
		b.WriteByte(' ')
		b.WriteString(bar)
	}
	b.WriteByte('\n')
	return b.String()
}

// bar draws "[====>    ]  1.2MB/3.4MB  5s"; "" if there is nothing to draw.
func (d *display) bar(p *jsonstream.Progress) string {
	if p == nil || (p.Current <= 0 && p.Total <= 0) {
		return ""
	}
	width := d.o.Width
	if width == 0 {
		width = 200
	}
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	if p.Units != "" {
		size = func(n int64) string { return fmt.Sprintf("%d", n) }
	}
	if p.Total <= 0 {
		s := size(p.Current)
		if p.Units != "" {
			return s + " " + p.Units
		}
		return fmt.Sprintf("%8s", s)
	}
	var b strings.Builder
	done := int(min(p.Current*100/p.Total, 100)) / 2
	if width > 110 {
		b.WriteByte('[')
		b.WriteString(strings.Repeat("=", done))
		b.WriteByte('>')
		b.WriteString(strings.Repeat(" ", 50-done))
		b.WriteString("] ")
	}
	switch {
	case p.HideCounts:
	case p.Current > p.Total:
		fmt.Fprintf(&b, "%8s", size(p.Current))
	default:
		fmt.Fprintf(&b, "%8s/%s", size(p.Current), size(p.Total))
	}
	if p.Units != "" {
		b.WriteString(" " + p.Units)
	}
	if p.Start > 0 && done < 50 && width > 50 {
		from := time.Since(time.Unix(p.Start, 0))
		if p.Current > 0 {
			left := time.Duration(float64(from) * float64(p.Total-p.Current) / float64(p.Current))
			b.WriteString(" " + left.Round(time.Second).String())
		}
	}
	return b.String()
}
