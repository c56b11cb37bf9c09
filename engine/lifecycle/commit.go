package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/changes"
	"github.com/wherry-engine/wherry/engine/stubs"
	"github.com/wherry-engine/wherry/image"
)

// Commit makes an image of a container and returns its ID. NotFound,
// InvalidArgument (changes, reference), Conflict.
func (e *Engine) Commit(ctx context.Context, req container.CommitRequest) (string, error) {
	u, err := e.index.find(req.Container)
	if err != nil {
		return "", err
	}
	if e.o.Transfer == nil {
		return "", errdefs.ErrNotImplemented.WithMessage("commit is not available in this engine")
	}
	if st := u.status.Load().State; st == container.StateRemoving || st == container.StateDead {
		return "", conflict("You cannot commit container %s which is %s", u.name(), st)
	}
	s := u.spec.Load()
	cfg := cloneConfig(s.Config)
	if req.Config != nil {
		overlay(&cfg, req.Config)
	}
	if err := changes.Apply(&cfg, req.Changes); err != nil {
		return "", err
	}
	parent, err := e.o.Images.Resolve(ctx, s.Image, nil)
	if err != nil {
		return "", err
	}
	e.refreshOwned(ctx, u)
	if req.Pause && u.status.Load().State == container.StateRunning {
		err := e.Pause(ctx, string(u.id))
		if err != nil && u.status.Load().State == container.StateRunning {
			return "", err
		}
		defer func() {
			if err != nil {
				return // it ended meanwhile, or somebody paused it
			}
			if err := e.Unpause(context.WithoutCancel(ctx), string(u.id)); err != nil {
				e.log.Error("unpause after commit", "container", u.id, "err", err)
			}
		}()
	}
	ref := req.Repo
	if ref != "" && req.Tag != "" {
		ref += ":" + req.Tag
	}
	icfg, err := imageConfig(&cfg, parent.Config, req)
	if err != nil {
		return "", err
	}
	id, err := e.o.Transfer.Commit(ctx, &parent, icfg, ref, func(w io.Writer) error {
		return stubs.Filter(w, func(w io.Writer) error { return e.o.Layers.Diff(ctx, u.id, w) })
	})
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	e.emit(u, apievents.ActionCommit, map[string]string{"comment": req.Comment, "imageID": id.String(), "imageRef": strings.TrimPrefix(ref, "docker.io/library/")})
	return id.String(), nil
}

func cloneConfig(c *apicontainer.Config) apicontainer.Config {
	out := *c
	out.Env, out.Cmd, out.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	out.Labels, out.Volumes = maps.Clone(c.Labels), maps.Clone(c.Volumes)
	out.ExposedPorts, out.OnBuild = maps.Clone(c.ExposedPorts), slices.Clone(c.OnBuild)
	return out
}

// overlay sets what the request's body names over the container's configuration.
func overlay(dst, src *apicontainer.Config) {
	if src.User != "" {
		dst.User = src.User
	}
	if src.WorkingDir != "" {
		dst.WorkingDir = src.WorkingDir
	}
	if len(src.Cmd) > 0 {
		dst.Cmd = src.Cmd
	}
	if len(src.Entrypoint) > 0 {
		dst.Entrypoint = src.Entrypoint
	}
	if len(src.Env) > 0 {
		dst.Env = src.Env
	}
	if src.Labels != nil {
		if dst.Labels == nil {
			dst.Labels = map[string]string{}
		}
		maps.Copy(dst.Labels, src.Labels)
	}
	if src.StopSignal != "" {
		dst.StopSignal = src.StopSignal
	}
	if src.Healthcheck != nil {
		dst.Healthcheck = src.Healthcheck
	}
}

// imageConfig is the configuration of the new image.
func imageConfig(c *apicontainer.Config, parent image.Config, req container.CommitRequest) (image.Config, error) {
	now := time.Now().UTC()
	out := image.Config{DockerConfig: image.DockerConfig{Shell: c.Shell, OnBuild: c.OnBuild, Comment: req.Comment}}
	out.Image = ocispec.Image{
		Created: &now, Author: req.Author, Platform: parent.Platform,
		Config: ocispec.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes,
			WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal, ArgsEscaped: c.ArgsEscaped,
		},
	}
	if len(c.ExposedPorts) > 0 {
		out.Config.ExposedPorts = map[string]struct{}{}
		for p := range c.ExposedPorts {
			out.Config.ExposedPorts[p.String()] = struct{}{}
		}
	}
	if c.Healthcheck != nil {
		raw, err := json.Marshal(c.Healthcheck)
		if err != nil {
			return out, err
		}
		out.Healthcheck = raw
	}
	return out, nil
}
