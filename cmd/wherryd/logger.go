package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/wherry-engine/wherry/daemon/config"
)

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// logLevel maps dockerd's words.
func logLevel(c *config.Config) slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	switch strings.ToLower(c.LogLevel) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "fatal", "panic":
		return slog.LevelError
	}
	return slog.LevelInfo
}
