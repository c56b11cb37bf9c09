package command

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
)

// view is what state and list show.
type view struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

func (g *globals) view(rt *ocirun.Runtime, r *record) view {
	v := view{
		State:  specs.State{Version: specs.Version, ID: r.ID, Status: g.status(rt, r), Pid: r.Pid, Bundle: r.Bundle, Annotations: r.Spec.Annotations},
		Rootfs: r.Spec.Root.Path, Created: r.Created,
	}
	if !filepath.IsAbs(v.Rootfs) {
		v.Rootfs = filepath.Join(r.Bundle, v.Rootfs)
	}
	if v.Status == specs.StateStopped {
		v.Pid = 0
	}
	return v
}

func state(_ context.Context, g *globals, args []string) error {
	id, err := oneID(newFlags("state"), args)
	if err != nil {
		return err
	}
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	return printJSON(g.view(rt, r))
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
