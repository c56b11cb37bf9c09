package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/imageconfig"
	"github.com/wherry-engine/wherry/engine/mounts"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/engine/records"
	"github.com/wherry-engine/wherry/engine/undo"
	"github.com/wherry-engine/wherry/image"
)

// Create makes a container from an image. InvalidArgument, NotFound (image,
// other containers), Conflict (name), NotImplemented.
func (e *Engine) Create(ctx context.Context, req container.CreateRequest) (container.Created, error) {
	ph := newPhases()
	if req.Config == nil {
		return container.Created{}, invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &apicontainer.HostConfig{}
	}
	if req.Name != "" {
		req.Name = trimSlash(req.Name)
		if err := naming.Check(req.Name); err != nil {
			return container.Created{}, err
		}
	}
	warnings, err := e.defaults.Load().Complete(&req)
	if err != nil {
		return container.Created{}, err
	}
	if err := e.resolveModes(req.HostConfig); err != nil {
		return container.Created{}, err
	}
	img, err := e.o.Images.Resolve(ctx, req.Config.Image, req.Platform)
	if err != nil {
		return container.Created{}, err
	}
	if err := imageconfig.Merge(req.Config, img.Config); err != nil {
		return container.Created{}, err
	}
	if err := check.Config(req.Config); err != nil {
		return container.Created{}, err
	}
	e.nameNetworks(ctx, &req)
	for name, ep := range req.Networking.EndpointsConfig {
		if err := check.Endpoint(name, ep); err != nil {
			return container.Created{}, err
		}
	}
	spec, err := e.newSpec(req, img)
	if err != nil {
		return container.Created{}, err
	}
	ph.end("image and checks")
	// The client may go away; a container is made or not made.
	if err := e.build(context.WithoutCancel(ctx), spec, img, ph); err != nil {
		return container.Created{}, err
	}
	return container.Created{ID: spec.ID, Warnings: warnings}, nil
}

func trimSlash(name string) string {
	if name != "" && name[0] == '/' {
		return name[1:]
	}
	return name
}

// newSpec makes the spec; nothing is created yet.
func (e *Engine) newSpec(req container.CreateRequest, img image.Image) (*container.Spec, error) {
	id := naming.NewID()
	for _, l := range req.HostConfig.Links {
		name, _, _ := strings.Cut(l, ":")
		if _, err := e.index.find(name); err != nil {
			return nil, invalid("could not get container for %s: %v", name, err)
		}
	}
	points, err := mounts.Resolve(req.Config, req.HostConfig, e.mountsOf)
	if err != nil {
		return nil, err
	}
	e.setHostname(req.Config, req.HostConfig, id)
	spec := &container.Spec{
		Version: records.Version, ID: id, Name: req.Name, Created: time.Now().UTC(),
		Image: img.ID.String(), ImageRef: req.Config.Image, ImageConfig: img.ConfigDigest.String(),
		Platform: img.Platform.OS, Driver: e.o.Layers.Name(),
		Config: req.Config, HostConfig: req.HostConfig, Networking: req.Networking,
		Sandbox: string(id), Mounts: points,
	}
	if spec.Platform == "" {
		spec.Platform = "linux"
	}
	if img.Manifest.Digest != "" {
		desc := img.Manifest
		if desc.Platform == nil && img.Platform.OS != "" {
			p := img.Platform
			desc.Platform = &p
		}
		spec.Manifest = &desc
	}
	switch req.HostConfig.LogConfig.Type {
	case "json-file":
		spec.LogPath = filepath.Join(e.dir(id), string(id)+"-json.log")
	case "local":
		spec.LogPath = filepath.Join(e.dir(id), "local-logs", "container.log")
	}
	return spec, nil
}

func (e *Engine) mountsOf(ref string) ([]container.Mount, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	return u.spec.Load().Mounts, nil
}

// build makes everything the spec needs, or nothing.
func (e *Engine) build(ctx context.Context, spec *container.Spec, img image.Image, ph *phases) (err error) {
	var done undo.List
	defer func() {
		if err == nil {
			return
		}
		if uerr := done.Run(ctx); uerr != nil {
			e.log.Error("undo create", "container", spec.ID, "err", uerr)
		}
	}()
	if err := e.takeName(spec); err != nil {
		return err
	}
	done.Add(func(context.Context) error { e.index.release(spec.Name, spec.ID); return nil })
	chain := img.Chain
	if chain, err = e.o.Images.Prepare(ctx, img); err != nil {
		return err
	}
	if err := e.o.Layers.Create(ctx, spec.ID, chain); err != nil {
		return fmt.Errorf("create the writable layer: %w", err)
	}
	done.Add(func(ctx context.Context) error { return e.o.Layers.Remove(ctx, spec.ID) })
	if err := os.Mkdir(e.dir(spec.ID), 0o710); err != nil {
		return err
	}
	done.Add(func(context.Context) error { return os.RemoveAll(e.dir(spec.ID)) })
	if dir := filepath.Dir(spec.LogPath); spec.LogPath != "" && dir != e.dir(spec.ID) {
		if err := os.Mkdir(dir, 0o710); err != nil {
			return err
		}
	}
	ph.end("writable layer")
	if err := e.volumes.Make(ctx, spec, &done); err != nil {
		return err
	}
	ph.end("volumes")
	st := &container.Status{Version: records.Version, State: container.StateCreated}
	if err := e.records.Add(spec, st); err != nil {
		return fmt.Errorf("save container: %w", err)
	}
	u := newUnit(spec, st)
	e.index.add(u)
	ph.end("save")
	e.emit(u, apievents.ActionCreate, ph.attrs())
	return nil
}

// takeName reserves the name asked for, or a random one.
func (e *Engine) takeName(spec *container.Spec) error {
	if spec.Name != "" {
		return e.index.reserve(spec.Name, spec.ID)
	}
	for attempt := range 6 {
		name := naming.Random(attempt)
		if e.index.reserve(name, spec.ID) == nil {
			spec.Name = name
			return nil
		}
	}
	spec.Name = spec.ID.Short()
	return e.index.reserve(spec.Name, spec.ID)
}
