package check

import (
	"slices"
	"strconv"

	"github.com/docker/go-units"
)

// logOptions are the options every log driver, and each one, knows.
func logOptions(driver string) []string {
	common := []string{"mode", "max-buffer-size"}
	switch driver {
	case "json-file", "":
		return append(common, "max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
	case "local":
		return append(common, "max-size", "max-file", "compress")
	}
	return common
}

// LogOptions checks the options of a log driver. InvalidArgument.
func LogOptions(driver string, opts map[string]string) error {
	if driver == "none" {
		return nil
	}
	for name, value := range opts {
		if !slices.Contains(logOptions(driver), name) {
			return invalid("unknown log opt '%s' for %s log driver", name, driver)
		}
		if err := logOption(name, value); err != nil {
			return err
		}
	}
	if opts["max-buffer-size"] != "" && opts["mode"] != "non-blocking" {
		return invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	return nil
}

func logOption(name, value string) error {
	switch name {
	case "max-size", "max-buffer-size":
		if value == "-1" {
			return nil
		}
		if n, err := units.RAMInBytes(value); err != nil || n <= 0 {
			return invalid("invalid value for log opt %s: %q", name, value)
		}
	case "max-file":
		if n, err := strconv.Atoi(value); err != nil || n < 1 {
			return invalid("max-file cannot be less than 1: %q", value)
		}
	case "compress":
		if _, err := strconv.ParseBool(value); err != nil {
			return invalid("invalid value for log opt compress: %q", value)
		}
	case "mode":
		if value != "" && value != "blocking" && value != "non-blocking" {
			return invalid("logger: logging mode not supported: %s", value)
		}
	}
	return nil
}
