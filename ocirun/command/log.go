package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// logHandler writes what the library has to say where callers look for it: to
// the file of --log in the form of --log-format, else to stderr.
type logHandler struct{ g *globals }

func (h logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || h.g.debug
}

func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	level := strings.ToLower(r.Level.String())
	if r.Level == slog.LevelWarn {
		level = "warning" // as runc's callers know it
	}
	h.g.say(level, b.String(), h.g.log == "")
	return nil
}

func (h logHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h logHandler) WithGroup(string) slog.Handler      { return h }

func (g *globals) logger() *slog.Logger { return slog.New(logHandler{g}) }

// report writes an error where the caller looks for it, and to stderr.
func report(g *globals, err error) { g.say("error", err.Error(), true) }

func (g *globals) say(level, msg string, stderr bool) {
	if stderr {
		fmt.Fprintln(os.Stderr, "wherry-runtime:", msg)
	}
	if g.log == "" {
		return
	}
	f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	g.line(f, level, msg)
}

func (g *globals) line(w io.Writer, level, msg string) {
	now := time.Now().Format(time.RFC3339)
	if g.logFormat == "json" {
		_ = json.NewEncoder(w).Encode(map[string]string{"level": level, "msg": msg, "time": now})
		return
	}
	fmt.Fprintf(w, "time=%q level=%s msg=%q\n", now, level, msg)
}
