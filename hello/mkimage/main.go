// Command mkimage packs one static program as an OCI image archive. The result
// depends on the program's bytes and the platform only: no clock, no user, no
// map order reaches it.
//
// usage: mkimage -program FILE -arch ARCH -o ARCHIVE
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // digest looks it up
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/hello"
)

// epoch stamps everything inside the image.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	log.SetFlags(0)
	log.SetPrefix("mkimage: ")
	program := flag.String("program", "", "static program to pack")
	arch := flag.String("arch", runtime.GOARCH, "architecture of the program")
	out := flag.String("o", "", "archive to write")
	flag.Parse()
	if err := run(*program, *arch, *out); err != nil {
		log.Fatal(err)
	}
}

func run(program, arch, out string) error {
	bin, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	archive, err := pack(bin, arch)
	if err != nil {
		return fmt.Errorf("pack %s: %w", program, err)
	}
	if old, err := os.ReadFile(out); err == nil && bytes.Equal(old, archive) {
		return nil // keep the time stamp, and with it the build cache
	}
	tmp := out + ".tmp"
	if err := os.WriteFile(tmp, archive, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Clean(out))
}

// entry is one file of a tar.
type entry struct {
	name string
	mode int64
	data []byte
}

// pack returns an OCI image layout, as a tar, with one image of one layer.
func pack(bin []byte, arch string) ([]byte, error) {
	layerTar, err := writeTar([]entry{{"hello", 0o755, bin}})
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&layer, gzip.BestCompression)
	if _, err := gz.Write(layerTar); err != nil {
		return nil, err
	}
	if err := gz.Close(); err != nil {
		return nil, err
	}

	config := marshal(ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/"},
			Entrypoint: []string{"/hello"},
			WorkingDir: "/",
			Labels: map[string]string{
				ocispec.AnnotationTitle:       "hello",
				ocispec.AnnotationDescription: "says that the engine works",
				ocispec.AnnotationLicenses:    "Apache-2.0",
			},
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layerTar)}},
		History: []ocispec.History{{Created: &epoch, CreatedBy: "hello/mkimage"}},
	})
	layerDesc := describe(ocispec.MediaTypeImageLayerGzip, layer.Bytes())
	configDesc := describe(ocispec.MediaTypeImageConfig, config)
	manifest := marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc,
		Layers:    []ocispec.Descriptor{layerDesc},
	})
	manifestDesc := describe(ocispec.MediaTypeImageManifest, manifest)
	manifestDesc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	manifestDesc.Annotations = map[string]string{
		"io.containerd.image.name": hello.Name,
		ocispec.AnnotationRefName:  "latest",
	}
	index := marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifestDesc},
	})
	// The second way to name the same blobs, for `docker load` before OCI layouts.
	legacy := marshal([]map[string]any{{
		"Config":   blobPath(configDesc),
		"RepoTags": []string{"hello:latest"},
		"Layers":   []string{blobPath(layerDesc)},
	}})
	return writeTar([]entry{
		{ocispec.ImageLayoutFile, 0o644, marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})},
		{ocispec.ImageIndexFile, 0o644, index},
		{"manifest.json", 0o644, legacy},
		{blobPath(manifestDesc), 0o644, manifest},
		{blobPath(configDesc), 0o644, config},
		{blobPath(layerDesc), 0o644, layer.Bytes()},
	})
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func blobPath(d ocispec.Descriptor) string {
	return "blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded()
}

// marshal encodes values that cannot fail to encode.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func writeTar(entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: epoch, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}
