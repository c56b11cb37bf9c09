package registrytest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's schema 2.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Blob is content with its descriptor.
type Blob struct {
	ocispec.Descriptor
	Data []byte
}

// NewBlob describes data.
func NewBlob(mediaType string, data []byte) Blob {
	return Blob{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

// Image is a manifest with its blobs.
type Image struct {
	Manifest Blob
	Config   Blob
	Layers   []Blob
}

// ImageOptions of New.
type ImageOptions struct {
	Docker      bool   // schema 2 instead of OCI
	Compression string // "gzip" (default), "zstd", "none"
	Platform    ocispec.Platform
	Config      ocispec.ImageConfig
	Created     time.Time
}

// File is an entry of a layer; Header.Size is filled in.
type File struct {
	tar.Header
	Body string
}

// Tar writes an archive.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size = int64(len(f.Body))
		if f.Typeflag == 0 {
			f.Typeflag = tar.TypeReg
		}
		if f.Mode == 0 {
			f.Mode = 0o644
			if f.Typeflag == tar.TypeDir {
				f.Mode = 0o755
			}
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.Body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Regular is a plain file.
func Regular(name, body string) File { return File{Header: tar.Header{Name: name}, Body: body} }

// Dir is a directory.
func Dir(name string, mode int64) File {
	return File{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}}
}

// New makes an image of uncompressed layers.
func New(t testing.TB, opts ImageOptions, layers ...[]byte) Image {
	t.Helper()
	if opts.Platform.OS == "" {
		opts.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	if opts.Created.IsZero() {
		opts.Created = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	}
	var img Image
	cfg := ocispec.Image{Created: &opts.Created, Platform: opts.Platform, Config: opts.Config}
	cfg.RootFS.Type = "layers"
	for i, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(l))
		cfg.History = append(cfg.History, ocispec.History{Created: &opts.Created, CreatedBy: "layer " + string(rune('a'+i))})
		img.Layers = append(img.Layers, compressed(t, opts, l))
	}
	cfg.History = append(cfg.History, ocispec.History{Created: &opts.Created, CreatedBy: "CMD", EmptyLayer: true})
	configType, manifestType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	if opts.Docker {
		configType, manifestType = DockerConfig, DockerManifest
	}
	img.Config = NewBlob(configType, marshal(t, cfg))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: img.Config.Descriptor, Layers: []ocispec.Descriptor{}}
	for _, l := range img.Layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	img.Manifest = NewBlob(manifestType, marshal(t, m))
	return img
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func compressed(t testing.TB, opts ImageOptions, p []byte) Blob {
	t.Helper()
	var b bytes.Buffer
	switch opts.Compression {
	case "none":
		return NewBlob(ocispec.MediaTypeImageLayer, p)
	case "zstd":
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(p)
		_ = w.Close()
		return NewBlob(ocispec.MediaTypeImageLayerZstd, b.Bytes())
	}
	w := gzip.NewWriter(&b)
	_, _ = w.Write(p)
	_ = w.Close()
	if opts.Docker {
		return NewBlob(DockerLayer, b.Bytes())
	}
	return NewBlob(ocispec.MediaTypeImageLayerGzip, b.Bytes())
}

// Index lists images by their platforms.
func Index(t testing.TB, docker bool, images map[string]Image) Blob {
	t.Helper()
	mt := ocispec.MediaTypeImageIndex
	if docker {
		mt = DockerList
	}
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mt}
	for p, img := range images {
		d := img.Manifest.Descriptor
		parts := strings.Split(p+"/", "/")
		d.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
		x.Manifests = append(x.Manifests, d)
	}
	return NewBlob(mt, marshal(t, x))
}

// Remote is a repository to push test images to over plain HTTP.
type Remote struct {
	Base       string // "http://127.0.0.1:5000"
	Repo       string
	User, Pass string
	Client     *http.Client
}

// Push uploads an image and tags it.
func (r Remote) Push(t testing.TB, img Image, tag string) {
	t.Helper()
	r.Blobs(t, append([]Blob{img.Config}, img.Layers...)...)
	r.Put(t, img.Manifest, tag)
}

// Blobs uploads blobs.
func (r Remote) Blobs(t testing.TB, blobs ...Blob) {
	t.Helper()
	for _, b := range blobs {
		resp := r.do(t, http.MethodPost, r.Base+"/v2/"+r.Repo+"/blobs/uploads/", "", nil)
		loc, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := loc.Query()
		q.Set("digest", b.Digest.String())
		loc.RawQuery = q.Encode()
		r.do(t, http.MethodPut, loc.String(), "application/octet-stream", b.Data)
	}
}

// Put uploads a manifest or index under a tag or digest.
func (r Remote) Put(t testing.TB, b Blob, tag string) {
	t.Helper()
	r.do(t, http.MethodPut, r.Base+"/v2/"+r.Repo+"/manifests/"+url.PathEscape(tag), b.MediaType, b.Data)
}

func (r Remote) do(t testing.TB, method, target, contentType string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if r.User != "" {
		req.SetBasicAuth(r.User, r.Pass)
	}
	c := r.Client
	if c == nil {
		c = http.DefaultClient
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 300 {
		t.Fatal(statusText(resp))
	}
	return resp
}
