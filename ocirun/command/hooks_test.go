package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestHookFailures: whatever hook fails, the container is gone afterwards and
// its poststop hooks have run, all of them.
func TestHookFailures(t *testing.T) {
	for _, tt := range []struct {
		name, fails string
		set         func(h *specs.Hooks, bad specs.Hook)
		inside      bool
	}{
		{"prestart", "create", func(h *specs.Hooks, bad specs.Hook) { h.Prestart = []specs.Hook{bad} }, false}, //nolint:staticcheck // still in use
		{"createRuntime", "create", func(h *specs.Hooks, bad specs.Hook) { h.CreateRuntime = []specs.Hook{bad} }, false},
		{"createContainer", "create", func(h *specs.Hooks, bad specs.Hook) { h.CreateContainer = []specs.Hook{bad} }, false},
		{"startContainer", "start", func(h *specs.Hooks, bad specs.Hook) { h.StartContainer = []specs.Hook{bad} }, true},
		{"poststart", "start", func(h *specs.Hooks, bad specs.Hook) { h.Poststart = []specs.Hook{bad} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "sleep", "100")
			after := filepath.Join(b.bundle, "after")
			b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{
				{Path: "/bin/false"},
				{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + after}},
			}}
			bad := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}}
			tt.set(b.spec.Hooks, bad)
			b.write()
			if tt.fails == "start" {
				b.want(0, "", "create", "-b", b.bundle, "c1")
				b.want(1, "exit status 3", "start", "c1")
			} else {
				b.want(1, "exit status 3", "create", "-b", b.bundle, "c1")
			}
			b.want(1, "does not exist", "state", "c1")
			state, err := os.ReadFile(after)
			if err != nil || !strings.Contains(string(state), `"stopped"`) {
				t.Errorf("poststop hooks: %s %v", state, err)
			}
			log, _ := os.ReadFile(filepath.Join(b.bundle, "log"))
			if !strings.Contains(string(log), `"level":"warning"`) || !strings.Contains(string(log), "poststop hook failed") {
				t.Errorf("no warning of the poststop hook that failed: %s", log)
			}
		})
	}
}
