package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// hostile is a registry with one image, which a test may corrupt.
type hostile struct {
	manifest []byte
	blobs    map[digest.Digest][]byte
	// digest, if set, is announced instead of the manifest's own.
	digest string
}

// newHostile makes a one-layer image of the tar entries.
func newHostile(entries ...tar.Header) *hostile {
	var layer, packed bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, e := range entries {
		data := []byte("planted")
		if e.Typeflag != tar.TypeReg {
			data = nil
		}
		e.Size = int64(len(data))
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		_ = tw.WriteHeader(&e)
		_, _ = tw.Write(data)
	}
	_ = tw.Close()
	gz := gzip.NewWriter(&packed)
	_, _ = gz.Write(layer.Bytes())
	_ = gz.Close()
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, testenv.Arch, digest.FromBytes(layer.Bytes()))
	h := &hostile{blobs: map[digest.Digest][]byte{digest.FromBytes(config): config, digest.FromBytes(packed.Bytes()): packed.Bytes()}}
	h.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
		digest.FromBytes(config), len(config), digest.FromBytes(packed.Bytes()), packed.Len())
	return h
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		d := digest.FromBytes(h.manifest).String()
		if h.digest != "" {
			d = h.digest
		}
		w.Header().Set("Docker-Content-Digest", d)
		w.Header().Set("Content-Length", fmt.Sprint(len(h.manifest)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(h.manifest)
		}
	case strings.Contains(r.URL.Path, "/blobs/"):
		data, ok := h.blobs[digest.Digest(parts[len(parts)-1])]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	default:
		http.NotFound(w, r)
	}
}

// TestHostileRegistry pulls what no honest registry would serve; every pull
// fails with a word of explanation and leaves nothing.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	made := 0
	image := func() *hostile { // each with a layer of its own, so that none profits from another
		made++
		return newHostile(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("file", made)})
	}
	layerOf := func(h *hostile) digest.Digest {
		var m struct {
			Layers []struct{ Digest digest.Digest }
		}
		_ = json.Unmarshal(h.manifest, &m)
		return m.Layers[0].Digest
	}
	tests := map[string]struct {
		make func() *hostile
		ref  string // appended to host/image
		want string
	}{
		"manifest of another digest": {func() *hostile { return image() }, "@sha256:" + strings.Repeat("1", 64), ""},
		"layer of another digest": {func() *hostile {
			h := image()
			data := h.blobs[layerOf(h)]
			changed := bytes.Clone(data)
			changed[len(changed)/2] ^= 1
			h.blobs[layerOf(h)] = changed
			return h
		}, ":x", ""},
		"layer shorter than said": {func() *hostile {
			h := image()
			h.blobs[layerOf(h)] = h.blobs[layerOf(h)][:20]
			return h
		}, ":x", ""},
		"layer longer than said": {func() *hostile {
			h := image()
			h.blobs[layerOf(h)] = append(bytes.Clone(h.blobs[layerOf(h)]), make([]byte, 1<<20)...)
			return h
		}, ":x", ""},
		"layer missing": {func() *hostile {
			h := image()
			delete(h.blobs, layerOf(h))
			return h
		}, ":x", "unknown"},
		"manifest is not JSON": {func() *hostile { h := image(); h.manifest = []byte("{"); return h }, ":x", ""},
		"manifest is huge": {func() *hostile {
			h := image()
			h.manifest = append(h.manifest, bytes.Repeat([]byte(" "), 64<<20)...)
			return h
		}, ":x", ""},
		"digest that is a path": {func() *hostile {
			h := image()
			h.manifest = bytes.ReplaceAll(h.manifest, []byte(layerOf(h)), []byte("sha256:../../../../etc/passwd"))
			return h
		}, ":x", ""},
	}
	cli := d.Docker(t)
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			server := httptest.NewServer(tt.make())
			defer server.Close()
			cli.Fails(t, 1, tt.want, "pull", strings.TrimPrefix(server.URL, "http://")+"/image"+tt.ref)
		})
	}
	equal(t, "images afterwards", cli.OK(t, "images", "-aq"), "")
}

// TestHostileLayers pulls layers whose entries point outside. They are either
// refused or unpacked inside; nothing of the host changes.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	outside := t.TempDir()
	write(t, filepath.Join(outside, "victim"), "untouched")
	up := strings.Repeat("../", 20) + strings.TrimPrefix(outside, "/")
	tests := map[string][]tar.Header{
		"dot dot":           {{Typeflag: tar.TypeReg, Name: up + "/planted"}},
		"absolute":          {{Typeflag: tar.TypeReg, Name: outside + "/planted"}},
		"through a link":    {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/planted"}},
		"through dots":      {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: up}, {Typeflag: tar.TypeReg, Name: "l/planted"}},
		"over a link":       {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside + "/victim"}, {Typeflag: tar.TypeReg, Name: "l"}},
		"hard link out":     {{Typeflag: tar.TypeLink, Name: "h", Linkname: up + "/victim"}, {Typeflag: tar.TypeReg, Name: "h"}},
		"hard link by link": {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeLink, Name: "h", Linkname: "l/victim"}, {Typeflag: tar.TypeReg, Name: "h"}},
		"whiteout out":      {{Typeflag: tar.TypeReg, Name: up + "/.wh.victim"}},
		"whiteout by link":  {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/.wh.victim"}},
		"whiteout of dots":  {{Typeflag: tar.TypeReg, Name: "a/.wh..."}, {Typeflag: tar.TypeReg, Name: "b/.wh.."}},
		"opaque by link":    {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/.wh..wh..opq"}},
	}
	cli := d.Docker(t)
	for label, entries := range tests {
		t.Run(label, func(t *testing.T) {
			server := httptest.NewServer(newHostile(entries...))
			defer server.Close()
			ref := strings.TrimPrefix(server.URL, "http://") + "/image"
			r := cli.Try(t, "pull", ref)
			t.Logf("pull: %d %s", r.Code, strings.TrimSpace(r.Stderr))
			if r.Code == 0 {
				cli.Try(t, "create", "--name", "x", ref)
				cli.Try(t, "rm", "-f", "x")
				cli.OK(t, "rmi", "-f", ref)
			}
			left, err := os.ReadDir(outside)
			if err != nil || len(left) != 1 {
				t.Errorf("outside the layer: %v %v", left, err)
			}
			equal(t, "the victim", read(t, filepath.Join(outside, "victim")), "untouched")
		})
	}
}
