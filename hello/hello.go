// Package hello carries the image that ships inside the engine: one tiny
// static program, so that a first `wherry run hello` needs no registry. The
// archive is made from hello/program by hello/mkimage during the build; a
// plain `go build` without that step gives an engine that has no such image
// and says so.
package hello

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
)

// Name is the reference under which the engine offers the image.
const Name = "docker.io/library/hello:latest"

// archiveName is where mkimage writes the archive, relative to this package.
const archiveName = "image/hello.tar"

//go:embed image
var files embed.FS

// Archive opens the image as an uncompressed tar of an OCI image layout.
// NotFound if the build made none.
func Archive() (io.ReadCloser, error) {
	f, err := files.Open(archiveName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this build carries no hello image (make static embeds it): %w", errdefs.ErrNotFound)
	}
	return f, err
}
