package images

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"time"

	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/image"
)

// inspection is the answer with the fields of older versions.
type inspection struct {
	apiimage.InspectResponse
	Config json.RawMessage

	Parent          *string          `json:"Parent,omitempty"`
	DockerVersion   *string          `json:"DockerVersion,omitempty"`
	Container       *string          `json:"Container,omitempty"`
	ContainerConfig *json.RawMessage `json:"ContainerConfig,omitempty"`
	VirtualSize     *int64           `json:"VirtualSize,omitempty"`
}

// Inspect answers GET /images/{name}/json.
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	manifests := route.Bool(r, "manifests") && route.AtLeast(r, "1.48")
	if manifests && platform != nil {
		return invalid("conflicting options: manifests and platform options cannot both be set")
	}
	img, err := h.o.Images.Resolve(r.Context(), route.Var(r, "name"), platform)
	if err != nil {
		return err
	}
	d, err := h.o.Images.Details(r.Context(), img)
	if err != nil {
		return err
	}
	out, err := inspect(&img, d)
	if err != nil {
		return err
	}
	if manifests {
		out.Manifests = manifestSummaries(d.Manifests, h.users(r.Context()))
	}
	if err := forVersion(r, out, &img, d); err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, out)
}

func inspect(img *image.Image, d image.Details) (*inspection, error) {
	out := &inspection{}
	out.ID = img.ID.String()
	out.RepoTags, out.RepoDigests = orEmpty(img.RepoTags), orEmpty(img.RepoDigests)
	out.Comment, out.Author = img.Config.Comment, img.Config.Author
	if !img.Created.IsZero() {
		out.Created = img.Created.Format(time.RFC3339Nano)
	}
	out.Architecture, out.Variant = img.Platform.Architecture, img.Platform.Variant
	out.Os, out.OsVersion = img.Platform.OS, img.Platform.OSVersion
	out.Size = img.Size
	out.RootFS = apiimage.RootFS{Type: img.Config.RootFS.Type}
	for _, id := range img.Config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, id.String())
	}
	out.Metadata.LastTagTime = img.LastTagged
	out.GraphDriver = &storage.DriverData{Name: d.Driver, Data: driverData(d.Dirs)}
	var doc struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(img.RawConfig, &doc); err != nil {
		return nil, err
	}
	if out.Config = doc.Config; len(out.Config) == 0 {
		out.Config = json.RawMessage("{}")
	}
	return out, nil
}

// driverData tells where overlayfs has the layers.
func driverData(dirs []string) map[string]string {
	data := map[string]string{}
	if len(dirs) > 0 {
		data["UpperDir"] = dirs[0]
	}
	if len(dirs) > 1 {
		data["LowerDir"] = strings.Join(dirs[1:], ":")
	}
	return data
}

// forVersion adds what older versions had and takes away what they had not.
func forVersion(r *http.Request, out *inspection, img *image.Image, d image.Details) error {
	if route.AtLeast(r, "1.48") {
		out.Descriptor = &img.Target
	}
	empty, parent, none := "", d.ParentID.String(), json.RawMessage("null")
	if !route.AtLeast(r, "1.52") {
		out.Parent, out.DockerVersion = &parent, &empty
	}
	if !route.AtLeast(r, "1.50") {
		cfg, err := legacyConfig(out.Config)
		if err != nil {
			return err
		}
		out.Config = cfg
	}
	if !route.AtLeast(r, "1.45") {
		out.Container, out.ContainerConfig = &empty, &none
	}
	if !route.AtLeast(r, "1.44") {
		out.VirtualSize = &img.Size
	}
	return nil
}

// legacyConfig fills a configuration up to all fields a container's has.
func legacyConfig(raw json.RawMessage) (json.RawMessage, error) {
	cfg := map[string]any{
		"Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
		"Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": nil, "Cmd": nil, "Image": "", "Volumes": nil,
		"WorkingDir": "", "Entrypoint": nil, "OnBuild": nil, "Labels": nil,
	}
	got := map[string]any{}
	if err := json.Unmarshal(raw, &got); err != nil {
		return nil, err
	}
	maps.Copy(cfg, got)
	return json.Marshal(cfg)
}

// History answers GET /images/{name}/history.
func (h Handlers) History(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	img, err := h.o.Images.Resolve(r.Context(), route.Var(r, "name"), platform)
	if err != nil {
		return err
	}
	steps, err := h.o.Images.History(r.Context(), img)
	if err != nil {
		return err
	}
	out := make([]apiimage.HistoryResponseItem, 0, len(steps))
	for i, s := range steps {
		e := apiimage.HistoryResponseItem{ID: "<missing>", Comment: s.Comment, CreatedBy: s.CreatedBy, Size: s.Size}
		if s.Created != nil {
			e.Created = s.Created.Unix()
		}
		if i == 0 {
			e.ID, e.Tags = img.ID.String(), img.RepoTags
		}
		out = append(out, e)
	}
	return route.JSON(w, http.StatusOK, out)
}
