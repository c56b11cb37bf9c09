package containers

import "net/http"

// Backend is what the endpoints need of the engine.
type Backend interface{}

// Endpoints not built yet answer 501.

func (h Handlers) Create(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Start(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Stop(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Kill(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Restart(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Pause(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Unpause(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Wait(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Rename(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Update(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Delete(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) List(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Logs(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Attach(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) AttachWS(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ExecCreate(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ExecStart(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ExecInspect(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ExecResize(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Resize(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Top(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Stats(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ArchiveGet(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ArchivePut(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) ArchiveHead(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Changes(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Export(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Commit(w http.ResponseWriter, r *http.Request) error { return todo(r) }
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error { return todo(r) }
