// Package driver chooses the implementation of a log driver by its name.
package driver

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/jsonfile"
	"github.com/wherry-engine/wherry/logs/local"
)

// Config names a log; it is task.Log without the dependency.
type Config struct {
	Driver  string
	Path    string // of the current file
	Options map[string]string
	Attrs   map[string]string
}

// NewWriter opens a log for appending. The driver "none" has no writer: nil.
func NewWriter(c Config) (logs.Writer, logs.Options, error) {
	o, err := logs.Parse(c.Driver, c.Options)
	if err != nil {
		return nil, o, err
	}
	switch c.Driver {
	case logs.JSONFile:
		w, err := jsonfile.NewWriter(jsonfile.WriterOptions{Path: c.Path, MaxSize: o.MaxSize, MaxFiles: o.MaxFiles, Compress: o.Compress, Attrs: c.Attrs})
		if err != nil {
			return nil, o, err
		}
		return w, o, nil
	case logs.Local:
		w, err := local.NewWriter(local.WriterOptions{Path: c.Path, MaxSize: o.MaxSize, MaxFiles: o.MaxFiles, Compress: o.Compress, Attrs: c.Attrs})
		if err != nil {
			return nil, o, err
		}
		return w, o, nil
	}
	return nil, o, nil
}

// CountAfter returns how many lines of a stream were logged since a writer's
// Position was ino and size.
func CountAfter(ctx context.Context, c Config, s logs.Stream, ino uint64, size int64) (int, error) {
	switch c.Driver {
	case logs.JSONFile:
		return jsonfile.CountAfter(ctx, c.Path, s, ino, size)
	case logs.Local:
		return local.CountAfter(ctx, c.Path, s, ino, size)
	}
	return 0, nil
}

// NewReader reads a log. A driver that keeps none answers NotImplemented.
func NewReader(c Config) (logs.Reader, error) {
	switch c.Driver {
	case logs.JSONFile:
		return jsonfile.NewReader(c.Path), nil
	case logs.Local:
		return local.NewReader(c.Path), nil
	}
	return nil, fmt.Errorf("configured logging driver does not support reading: %w", errdefs.ErrNotImplemented)
}
