package store

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/registry/registrytest"
)

// FuzzManifest reads hostile manifests with hostile configurations.
func FuzzManifest(f *testing.F) {
	img := registrytest.New(f, registrytest.ImageOptions{}, registrytest.Tar(f, registrytest.Regular("a", "b")))
	f.Add(img.Manifest.Data, img.Config.Data)
	f.Add([]byte(`{"schemaVersion":2,"layers":null,"config":{}}`), []byte(`{}`))
	f.Add([]byte(`[]`), []byte(`{"rootfs":{"diff_ids":["sha256:x"]}}`))
	f.Fuzz(func(_ *testing.T, doc, cfg []byte) {
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
		m, err := decodeManifest(desc, doc)
		if err != nil {
			return
		}
		if p, err := newParsed(desc, m, cfg); err == nil && len(p.chains) != len(m.Layers) {
			panic("chains and layers differ")
		}
	})
}

// FuzzIndex reads hostile indexes.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:0","size":-1}]}`))
	f.Fuzz(func(_ *testing.T, doc []byte) {
		x, err := decodeIndex(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex}, doc)
		if err == nil {
			for _, d := range x.Manifests {
				isAttestation(d)
			}
		}
		detectMediaType(doc)
	})
}

// FuzzConfig checks that a configuration survives being written.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","comment":"c","config":{"Cmd":["x"],"Healthcheck":{"Test":["CMD","x"]},"Shell":["/bin/sh"],"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg, err := decodeConfig(raw)
		if err != nil {
			return
		}
		out, err := encodeConfig(cfg)
		if err != nil {
			return
		}
		again, err := decodeConfig(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		b, err := encodeConfig(again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(out), string(b)); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzDecompress reads hostile streams.
func FuzzDecompress(f *testing.F) {
	img := registrytest.New(f, registrytest.ImageOptions{}, registrytest.Tar(f, registrytest.Regular("a", "b")))
	zst := registrytest.New(f, registrytest.ImageOptions{Compression: "zstd"}, registrytest.Tar(f, registrytest.Regular("a", "b")))
	f.Add(img.Layers[0].Data)
	f.Add(zst.Layers[0].Data)
	f.Add([]byte("\x50\x2a\x4d\x18"))
	f.Fuzz(func(_ *testing.T, p []byte) {
		r, _, err := decompress(bytes.NewReader(p))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		_ = r.Close()
	})
}

// FuzzEntryName checks which names are refused.
func FuzzEntryName(f *testing.F) {
	for _, s := range []string{"a", "../a", "/../a", "a/../../b", "", "./", "..", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, name string) { _ = inside(name) })
}
