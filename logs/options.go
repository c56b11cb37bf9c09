package logs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Names of drivers.
const (
	JSONFile = "json-file"
	Local    = "local"
	None     = "none"
)

// Defaults of the file drivers.
const (
	DefaultMaxSize  = 50 << 20
	DefaultMaxFiles = 5
	// DefaultBuffer bounds what waits for the disk in non-blocking mode (bytes).
	DefaultBuffer = 1 << 20
)

// Options are a driver's options, parsed.
type Options struct {
	MaxSize  int64 // bytes; negative: unlimited
	MaxFiles int
	Compress bool
	// NonBlocking drops output when more than BufferSize bytes wait for the disk.
	NonBlocking bool
	BufferSize  int64
	// Blocking was asked for by name: a log that cannot be written stops the
	// container. With neither, it holds it up for moments only.
	Blocking bool
}

// Drivers lists the drivers that exist.
func Drivers() []string { return []string{JSONFile, Local, None} }

// Validate checks a driver's name and options; errors are InvalidArgument and
// say what Docker users expect to read.
func Validate(driver string, opts map[string]string) error {
	_, err := Parse(driver, opts)
	return err
}

// Parse checks and evaluates a driver's options.
func Parse(driver string, opts map[string]string) (Options, error) {
	o := Options{MaxSize: DefaultMaxSize, MaxFiles: DefaultMaxFiles, Compress: driver == Local, BufferSize: DefaultBuffer}
	var known []string
	common := []string{"mode", "max-buffer-size"}
	switch driver {
	case JSONFile, Local:
		known = []string{"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}
	case None:
		return o, nil
	default:
		return o, fmt.Errorf("logger: no log driver named '%s' is registered: %w", driver, errdefs.ErrInvalidArgument)
	}
	for k, v := range opts {
		if !slices.Contains(known, k) && !slices.Contains(common, k) {
			return o, fmt.Errorf("unknown log opt '%s' for %s log driver: %w", k, driver, errdefs.ErrInvalidArgument)
		}
		if err := o.set(k, v); err != nil {
			return o, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	if _, ok := opts["max-buffer-size"]; ok && !o.NonBlocking {
		return o, fmt.Errorf("logger: max-buffer-size option is only supported with 'mode=non-blocking': %w", errdefs.ErrInvalidArgument)
	}
	return o, nil
}

func (o *Options) set(key, value string) (err error) {
	switch key {
	case "max-size":
		if o.MaxSize, err = Size(value); err == nil && o.MaxSize == 0 {
			err = fmt.Errorf("max-size must be a positive number or -1")
		}
	case "max-file":
		if o.MaxFiles, err = strconv.Atoi(value); err == nil && o.MaxFiles < 1 {
			err = fmt.Errorf("max-file cannot be less than 1")
		}
	case "compress":
		o.Compress, err = strconv.ParseBool(value)
	case "mode":
		switch value {
		case "":
		case "blocking":
			o.Blocking = true
		case "non-blocking":
			o.NonBlocking = true
		default:
			err = fmt.Errorf("logger: logging mode not supported: %s", value)
		}
	case "max-buffer-size":
		if o.BufferSize, err = Size(value); err == nil && o.BufferSize <= 0 {
			err = fmt.Errorf("logger: max-buffer-size must be positive")
		}
	}
	if err != nil && (key == "max-size" || key == "max-file" || key == "compress") {
		err = fmt.Errorf("invalid value for %s: %w", key, err)
	}
	return err
}

// Size parses a number of bytes with an optional binary suffix (k, m, g, t,
// each with an optional b or ib); "-1" means unlimited.
func Size(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimSpace(strings.TrimSuffix(strings.TrimSuffix(t, "b"), "i"))
	unit := 1.0
	if n := len(t); n > 0 {
		if i := strings.IndexByte("kmgtp", t[n-1]); i >= 0 {
			unit = math.Pow(1024, float64(i+1))
			t = strings.TrimSpace(t[:n-1])
		}
	}
	v, err := strconv.ParseFloat(t, 64)
	if err != nil || v < 0 || v*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return int64(v * unit), nil
}
