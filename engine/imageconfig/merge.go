// Package imageconfig carries configuration between images and containers: what
// a new container takes from its image, and what an image made of a container
// takes from that.
package imageconfig

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/image"
)

// Merge fills what the request leaves open from the image. InvalidArgument
// if there is nothing to run.
func Merge(c *apicontainer.Config, img image.Config) error {
	from := img.Config
	if c.User == "" {
		c.User = from.User
	}
	if err := mergePorts(c, from.ExposedPorts); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, env := range c.Env {
		name, _, _ := strings.Cut(env, "=")
		have[name] = true
	}
	var env []string
	for _, kv := range from.Env {
		if name, _, _ := strings.Cut(kv, "="); !have[name] {
			env = append(env, kv)
		}
	}
	c.Env = append(env, c.Env...)
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return errdefs.ErrInvalidArgument.WithMessage("no command specified")
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if len(from.Volumes) > 0 && c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	maps.Copy(c.Volumes, from.Volumes)
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = img.Shell
	}
	return mergeHealth(c, img.Healthcheck)
}

func mergePorts(c *apicontainer.Config, ports map[string]struct{}) error {
	for text := range ports {
		p, err := network.ParsePort(text)
		if err != nil {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the image exposes an invalid port %q: %v", text, err))
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	return nil
}

func mergeHealth(c *apicontainer.Config, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	var from *apicontainer.HealthConfig
	if err := json.Unmarshal(raw, &from); err != nil {
		return fmt.Errorf("health check of the image: %w", err)
	}
	if from == nil {
		return nil
	}
	if c.Healthcheck == nil {
		c.Healthcheck = from
		return nil
	}
	h := c.Healthcheck
	if len(h.Test) == 0 {
		h.Test = from.Test
	}
	if h.Interval == 0 {
		h.Interval = from.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = from.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = from.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = from.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = from.Retries
	}
	return nil
}
