// Package containers is the containers and exec groups of the Engine API: it
// decodes requests, calls the engine through the Backend it declares, and
// encodes answers. It decides nothing about containers, and errors become
// status codes in package api only.
package containers

import (
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/logs"
)

// Backend is what the endpoints need of the engine. Errors carry errdefs
// classes and the texts users see.
type Backend interface {
	Lifecycle
	Observer
	Streamer
	Executor
	Copier
}

// Lifecycle changes containers.
type Lifecycle interface {
	Create(ctx context.Context, req container.CreateRequest) (container.Created, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, req container.StopRequest) error
	Restart(ctx context.Context, ref string, req container.StopRequest) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, req apicontainer.UpdateConfig) ([]string, error)
	Delete(ctx context.Context, ref string, req container.DeleteRequest) error
	Prune(ctx context.Context, filters map[string][]string, until time.Time) (apicontainer.PruneReport, error)
	Commit(ctx context.Context, req container.CommitRequest) (string, error)
}

// Observer tells about containers.
type Observer interface {
	List(ctx context.Context, req container.ListRequest) ([]apicontainer.Summary, error)
	Inspect(ctx context.Context, ref string, size bool) (apicontainer.InspectResponse, error)
	Top(ctx context.Context, ref, args string) (apicontainer.TopResponse, error)
	Stats(ctx context.Context, ref string, stream, oneShot bool, emit func(apicontainer.StatsResponse) error) error
	Changes(ctx context.Context, ref string) ([]apicontainer.FilesystemChange, error)
}

// Streamer connects clients with containers.
type Streamer interface {
	Wait(ctx context.Context, ref string, req container.WaitRequest) (container.WaitResult, error)
	Attach(ctx context.Context, ref string, req container.AttachRequest) error
	Logs(ctx context.Context, ref string, req container.LogsRequest) (seq iter.Seq2[logs.Message, error], tty bool, err error)
	Resize(ctx context.Context, ref string, height, width int) error
}

// Executor runs further processes.
type Executor interface {
	ExecCreate(ctx context.Context, ref string, req apicontainer.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, req container.ExecStartRequest) error
	ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width int) error
}

// Copier moves files; begin is called once the request is known to be good.
type Copier interface {
	ArchiveStat(ctx context.Context, ref, path string) (apicontainer.PathStat, error)
	ArchiveGet(ctx context.Context, ref, path string, begin func(apicontainer.PathStat) io.Writer) error
	ArchivePut(ctx context.Context, ref string, req container.PutRequest, r io.Reader) error
	Export(ctx context.Context, ref string, begin func() io.Writer) error
}

// Handlers are the endpoints; every method of the shape of route.Handler is one.
type Handlers struct {
	b Backend
}

// New returns the endpoints over a backend.
func New(b Backend) Handlers { return Handlers{b: b} }

// ref is the container a request names.
func ref(r *http.Request) string {
	if name := route.Var(r, "id"); name != "" {
		return name
	}
	return route.Var(r, "name")
}

func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
