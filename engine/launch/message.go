// Package launch makes the message that has the supervisor start a container,
// and explains to clients the errors of its answers.
package launch

import (
	"slices"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/engine/mounts"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/task"
)

// Input is all that a message is made of.
type Input struct {
	Container *container.Spec
	Defaults  *defaults.Containers
	Root      task.Root
	IDs       container.IDMap          // of the container's user namespace; Root is mapped so already
	Files     []specs.Mount            // of the files in /etc, unless the user mounts there
	Sources   map[string]mounts.Source // by the mount's destination
	Joins     Joins
}

// Joins is what a container takes from others.
type Joins struct {
	PID, IPC, Net string // IDs of tasks
	Owner         string // the one whose user namespace is shared; empty for none
	Shm           string // path of the shared memory; empty for one inside
	LinkEnv       []string
}

// Message is the one message to the supervisor; the default AppArmor profile is
// loaded first where it is used. InvalidArgument.
func Message(in Input) (task.StartRequest, error) {
	s, d := in.Container, in.Defaults
	ms := mounts.Own(in.Files, in.IDs)
	for _, m := range s.Mounts {
		ms = slices.DeleteFunc(ms, func(f specs.Mount) bool { return f.Destination == m.Destination })
	}
	for _, m := range s.Mounts {
		ms = append(ms, mounts.OCI(m, in.Sources[m.Destination], in.IDs))
	}
	slices.SortStableFunc(ms, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	cfg, err := spec.Build(spec.Input{
		Container: s, Mounts: ms, LinkEnv: in.Joins.LinkEnv, ShmSource: in.Joins.Shm, IDs: in.IDs,
		Defaults: spec.Defaults{NoNewPrivileges: d.NoNewPrivileges, Seccomp: d.Seccomp, Ulimits: d.Ulimits, AppArmor: d.AppArmor},
	})
	if err != nil {
		return task.StartRequest{}, err
	}
	if p := cfg.Process.ApparmorProfile; p != "" && p == d.AppArmor {
		if err := d.LoadAppArmor(); err != nil {
			return task.StartRequest{}, err
		}
	}
	h := s.HostConfig
	runtime, ok := d.Runtimes[h.Runtime]
	if !ok && h.Runtime != "" { // the configuration has changed since
		return task.StartRequest{}, invalid("unknown or invalid runtime name: %s", h.Runtime)
	}
	parent := h.CgroupParent
	if parent == "" {
		parent = d.CgroupParent
	}
	return task.StartRequest{
		Version: task.Protocol, ID: string(s.ID), Spec: cfg, Root: in.Root,
		User: s.Config.User, Groups: h.GroupAdd,
		Stdio: task.Stdio{
			Terminal: s.Config.Tty, OpenStdin: s.Config.OpenStdin, StdinOnce: s.Config.StdinOnce,
			Height: int(h.ConsoleSize[0]), Width: int(h.ConsoleSize[1]),
		},
		Log:          task.Log{Driver: h.LogConfig.Type, Path: s.LogPath, Options: h.LogConfig.Config, Attrs: logAttrs(s)},
		Restart:      RestartPolicy(h.RestartPolicy),
		Init:         h.Init != nil && *h.Init,
		CgroupParent: parent, SystemdDriver: d.SystemdCgroup, Runtime: runtime,
		JoinPID: in.Joins.PID, JoinIPC: in.Joins.IPC, JoinNet: in.Joins.Net,
	}, nil
}

// RestartPolicy is a policy in the supervisor's terms.
func RestartPolicy(p apicontainer.RestartPolicy) task.RestartPolicy {
	return task.RestartPolicy{Name: string(p.Name), MaxRetries: p.MaximumRetryCount}
}

// logAttrs are the labels and variables that the log options ask for.
func logAttrs(s *container.Spec) map[string]string {
	opts := s.HostConfig.LogConfig.Config
	out := map[string]string{}
	for name := range strings.SplitSeq(opts["labels"], ",") {
		if v, ok := s.Config.Labels[name]; ok && name != "" {
			out[name] = v
		}
	}
	for name := range strings.SplitSeq(opts["env"], ",") {
		for _, kv := range s.Config.Env {
			if k, v, _ := strings.Cut(kv, "="); k == name && name != "" {
				out[k] = v
			}
		}
	}
	if tag := opts["tag"]; tag != "" {
		out["tag"] = tag
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
