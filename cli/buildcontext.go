package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-engine/wherry/cli/archive"
)

// buildSource is the context to send: a tar stream, or an address that the
// daemon fetches itself.
type buildSource struct {
	body       io.Reader
	remote     string
	dockerfile string // its name in the context
	pipe       *io.PipeReader
	failed     chan error // what went wrong while the context was read
}

// stdinDockerfile is the name of a Dockerfile that is not part of the context.
const stdinDockerfile = ".dockerfile.wherry"

// source finds out what the argument is.
func (b *builder) source(arg string) (*buildSource, error) {
	switch {
	case arg == "-" && b.file == "-":
		return nil, invalidf("invalid argument: can't use stdin for both build context and dockerfile")
	case arg == "-":
		return b.stdinSource()
	case isRemote(arg):
		if b.file == "-" {
			return nil, invalidf("a Dockerfile from stdin is not supported with a remote context")
		}
		name := b.file
		if name == "" {
			name = "Dockerfile"
		}
		return &buildSource{remote: arg, dockerfile: name}, nil
	}
	return b.dirSource(arg)
}

func isRemote(arg string) bool {
	for _, p := range []string{"http://", "https://", "git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(arg, p) {
			return !exists(arg)
		}
	}
	return false
}

// stdinSource takes an archive, compressed or not, or else a Dockerfile alone.
func (b *builder) stdinSource() (*buildSource, error) {
	in := bufio.NewReaderSize(b.a.in, 1024)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	name := b.file
	if name == "" {
		name = "Dockerfile"
	}
	if isArchive(head) {
		return &buildSource{body: in, dockerfile: filepath.ToSlash(name)}, nil
	}
	if b.file != "" {
		return nil, invalidf("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	raw, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := addFile(w, "Dockerfile", raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &buildSource{body: &buf, dockerfile: "Dockerfile"}, nil
}

// isArchive knows tar and the compressions that the daemon undoes.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

func (b *builder) dirSource(arg string) (*buildSource, error) {
	dir, err := filepath.EvalSymlinks(arg)
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: path %q not found", arg)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("unable to prepare context: context must be a directory: %s", arg)
	}
	name, content, err := b.dockerfile(dir)
	if err != nil {
		return nil, err
	}
	ig, err := readIgnore(dir, name)
	if err != nil {
		return nil, err
	}
	src := &buildSource{dockerfile: name, failed: make(chan error, 1)}
	if content != nil {
		src.dockerfile = stdinDockerfile
	}
	pr, pw := io.Pipe()
	src.body, src.pipe = pr, pr
	go func() {
		var to io.Writer = pw
		var zip *gzip.Writer
		if b.compress {
			zip = gzip.NewWriter(pw)
			to = zip
		}
		w := tar.NewWriter(to)
		err := archive.Write(w, dir, archive.WriteOptions{Skip: ig.Skip, ZeroOwner: true})
		if err == nil && content != nil {
			err = addFile(w, stdinDockerfile, content)
		}
		err = firstError(err, w.Close())
		if zip != nil {
			err = firstError(err, zip.Close())
		}
		src.failed <- err
		_ = pw.CloseWithError(err)
	}()
	return src, nil
}

// dockerfile returns the Dockerfile's name in the context, or its content if
// it is not there.
func (b *builder) dockerfile(dir string) (name string, content []byte, err error) {
	switch b.file {
	case "":
		name := "Dockerfile"
		if !exists(filepath.Join(dir, name)) && exists(filepath.Join(dir, "dockerfile")) {
			name = "dockerfile"
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return "", nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
		}
		return name, nil, nil
	case "-":
		content, err := io.ReadAll(b.a.in)
		return "", content, err
	}
	abs, err := filepath.Abs(b.file)
	if err != nil {
		return "", nil, err
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(real, filepath.Base(abs))
	}
	if !exists(abs) && !filepath.IsAbs(b.file) { // relative to the context
		abs = filepath.Join(dir, b.file)
	}
	if rel, err := filepath.Rel(dir, abs); err == nil && filepath.IsLocal(rel) {
		if _, err := os.Lstat(abs); err != nil {
			return "", nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
		}
		return filepath.ToSlash(rel), nil, nil
	}
	if _, err := os.Lstat(abs); err != nil {
		return "", nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	content, err = os.ReadFile(abs)
	if err != nil {
		return "", nil, fmt.Errorf("unable to prepare context: %w", err)
	}
	return "", content, nil
}

// readIgnore reads DOCKERFILE.dockerignore or .dockerignore. The Dockerfile and
// the file itself are always sent, as the daemon needs them.
func readIgnore(dir, dockerfile string) (*archive.Ignore, error) {
	ig := &archive.Ignore{}
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ig, err = archive.ParseIgnore(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, keep := range []string{name, dockerfile} {
			if keep != "" && ig.Match(keep) {
				if err := ig.Add("!" + keep); err != nil {
					return nil, err
				}
			}
		}
		return ig, nil
	}
	return ig, nil
}

func addFile(w *tar.Writer, name string, content []byte) error {
	h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// close ends the reading of the context.
func (s *buildSource) close() {
	if s.pipe != nil {
		_ = s.pipe.CloseWithError(context.Canceled)
	}
}

// explain prefers what went wrong in reading the context.
func (s *buildSource) explain(err error) error {
	if s.failed == nil {
		return err
	}
	select {
	case cause := <-s.failed:
		if cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, io.ErrClosedPipe) {
			return fmt.Errorf("error reading build context: %w", cause)
		}
	default:
	}
	return err
}
