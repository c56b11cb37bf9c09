package ocirun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/initproc"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// addHooks prepares the hooks that init runs and tells it to stop for the others.
func addHooks(cfg *wire.Config, req *CreateRequest, pid int) error {
	h := req.Spec.Hooks
	if h == nil {
		return nil
	}
	cfg.HostHooks = len(h.Prestart)+len(h.CreateRuntime) > 0 //nolint:staticcheck // prestart is still in use
	var err error
	if cfg.CreateContainer, err = wireHooks(h.CreateContainer, req, pid, specs.StateCreating); err != nil {
		return err
	}
	cfg.StartContainer, err = wireHooks(h.StartContainer, req, pid, specs.StateCreated)
	return err
}

func wireHooks(hooks []specs.Hook, req *CreateRequest, pid int, status specs.ContainerState) ([]wire.Hook, error) {
	if len(hooks) == 0 {
		return nil, nil
	}
	state, err := json.Marshal(stateOf(req, pid, status))
	if err != nil {
		return nil, err
	}
	out := make([]wire.Hook, len(hooks))
	for i, h := range hooks {
		if !filepath.IsAbs(h.Path) {
			return nil, invalidf("hook %q: the path must be absolute", h.Path)
		}
		out[i] = wire.Hook{Path: h.Path, Args: h.Args, Env: h.Env, State: state}
		if h.Timeout != nil {
			if *h.Timeout <= 0 {
				return nil, invalidf("hook %s: the timeout must be positive", h.Path)
			}
			out[i].Timeout = int64(*h.Timeout)
		}
	}
	return out, nil
}

func (r *Runtime) hostHooks(ctx context.Context, req *CreateRequest, pid int) error {
	h := req.Spec.Hooks
	if err := RunHooks(ctx, "prestart", h.Prestart, req, pid, specs.StateCreating); err != nil { //nolint:staticcheck // still in use
		return err
	}
	return RunHooks(ctx, "createRuntime", h.CreateRuntime, req, pid, specs.StateCreating)
}

// RunHooks runs hooks in this process's namespaces, one after the other, with
// the container's state on their stdin. The first that fails ends it.
func RunHooks(ctx context.Context, name string, hooks []specs.Hook, req *CreateRequest, pid int, status specs.ContainerState) error {
	list, err := wireHooks(hooks, req, pid, status)
	if err != nil {
		return err
	}
	for i := range list {
		if err := initproc.RunHook(ctx, &list[i]); err != nil {
			return &hookError{fmt.Errorf("%s hook %d: %w", name, i, err)}
		}
	}
	return nil
}

// hookError is the failure of a hook.
type hookError struct{ err error }

func (e *hookError) Error() string { return e.err.Error() }
func (e *hookError) Unwrap() error { return e.err }

// IsHookError tells whether a hook failed, and nothing else: the container is
// then to be destroyed and its poststop hooks to be run (runtime.md, "Lifecycle").
func IsHookError(err error) bool {
	var hook *hookError
	var setup *SetupError
	return errors.As(err, &hook) || errors.As(err, &setup) && strings.HasSuffix(setup.Stage, "hooks")
}
