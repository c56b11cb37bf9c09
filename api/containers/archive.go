package containers

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

// statHeader carries the description of a path as base64 of its JSON.
const statHeader = "X-Docker-Container-Path-Stat"

func archivePath(r *http.Request) (string, error) {
	if err := route.Form(r); err != nil {
		return "", err
	}
	path := r.FormValue("path")
	if path == "" {
		return "", invalid("bad parameter: \"path\" cannot be empty")
	}
	return path, nil
}

func setStat(w http.ResponseWriter, st apicontainer.PathStat) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(raw))
	return nil
}

// ArchiveHead handles HEAD /containers/{id}/archive.
func (h Handlers) ArchiveHead(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	st, err := h.b.ArchiveStat(r.Context(), ref(r), path)
	if err != nil {
		return err
	}
	return setStat(w, st)
}

// ArchiveGet handles GET /containers/{id}/archive.
func (h Handlers) ArchiveGet(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	return h.b.ArchiveGet(r.Context(), ref(r), path, func(st apicontainer.PathStat) io.Writer {
		_ = setStat(w, st) // a description always encodes
		w.Header().Set("Content-Type", "application/x-tar")
		return w
	})
}

// ArchivePut handles PUT /containers/{id}/archive.
func (h Handlers) ArchivePut(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	body, err := decompress(r.Body)
	if err != nil {
		return invalid("%v", err)
	}
	defer body.Close()
	return h.b.ArchivePut(r.Context(), ref(r), container.PutRequest{
		Path: path, NoOverwriteDirNonDir: route.Bool(r, "noOverwriteDirNonDir"), CopyUIDGID: route.Bool(r, "copyUIDGID"),
	}, body)
}

// Export handles GET /containers/{id}/export.
func (h Handlers) Export(w http.ResponseWriter, r *http.Request) error {
	return h.b.Export(r.Context(), ref(r), func() io.Writer {
		w.Header().Set("Content-Type", "application/octet-stream")
		return w
	})
}
