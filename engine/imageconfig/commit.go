package imageconfig

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/image"
)

// Clone copies a configuration, as deep as commits change it.
func Clone(c *apicontainer.Config) apicontainer.Config {
	out := *c
	out.Env, out.Cmd, out.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	out.Labels, out.Volumes = maps.Clone(c.Labels), maps.Clone(c.Volumes)
	out.ExposedPorts, out.OnBuild = maps.Clone(c.ExposedPorts), slices.Clone(c.OnBuild)
	return out
}

// Overlay sets what the request's body names over the container's configuration.
func Overlay(dst, src *apicontainer.Config) {
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

// OfContainer is the configuration of an image that is made of a container.
func OfContainer(c *apicontainer.Config, parent image.Config, req container.CommitRequest) (image.Config, error) {
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
