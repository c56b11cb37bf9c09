package sysinfo

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/wherry-engine/wherry/daemon/config"
)

// featuresKey is under which Engine API clients find what a runtime can do
// (runtime-spec, features.md).
const featuresKey = "org.opencontainers.runtime-spec.features"

// featuresPatience bounds a runtime's answer; one that gives none has no
// features to tell.
const featuresPatience = 5 * time.Second

// features asks runtimes what they can do, once for each configuration.
type features struct {
	mu     sync.Mutex
	asked  *config.Config
	status map[string]map[string]string // by name
}

// of returns the status of each runtime in the configuration and of the
// built-in one, whose program is builtin.
func (f *features) of(c *config.Config, builtin string) map[string]map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == c {
		return f.status
	}
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		status = map[string]map[string]string{}
	)
	ask := func(name, path string, args []string) {
		all.Go(func() {
			if text := askFeatures(path, args); text != "" {
				mu.Lock()
				defer mu.Unlock()
				status[name] = map[string]string{featuresKey: text}
			}
		})
	}
	ask(config.BuiltinRuntime, builtin, nil)
	for name, r := range c.Runtimes {
		path, args := r.Command()
		if path == "" {
			path = builtin
		}
		ask(name, path, args)
	}
	all.Wait()
	f.asked, f.status = c, status
	return status
}

// askFeatures returns the runtime's answer on one line, "" if it has none.
func askFeatures(path string, args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), featuresPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(slices.Clone(args), "features")...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var line bytes.Buffer
	if err != nil || json.Compact(&line, out) != nil {
		return ""
	}
	return line.String()
}
