package lifecycle

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/changes"
	"github.com/wherry-engine/wherry/engine/imageconfig"
	"github.com/wherry-engine/wherry/engine/stubs"
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
	cfg := imageconfig.Clone(s.Config)
	if req.Config != nil {
		imageconfig.Overlay(&cfg, req.Config)
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
	icfg, err := imageconfig.OfContainer(&cfg, parent.Config, req)
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
