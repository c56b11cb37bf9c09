package cli

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/archive"
	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func cpCommand() command {
	return command{
		group: "container", name: "cp", top: "cp",
		usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-", usage2: "[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		short: "Copy files into or out of a container",
		long: `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`,
		args: exactArgs(2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			c := &copier{a: a}
			f.BoolVarP(&c.archive, "archive", "a", false, "Keep the owner and group of each file")
			f.BoolVarP(&c.follow, "follow-link", "L", false, "If SRC_PATH is a symbolic link, copy what it points to")
			f.BoolVarP(&c.quiet, "quiet", "q", false, "Show no progress; none is shown without a terminal anyway")
			return c.run
		},
	}
}

type copier struct {
	a                      *app
	archive, follow, quiet bool
}

func (c *copier) run(ctx context.Context, args []string) error {
	if args[0] == "" || args[1] == "" {
		return invalidf("source or destination can not be empty")
	}
	fromName, from := splitCopyArg(args[0])
	toName, to := splitCopyArg(args[1])
	switch {
	case fromName != "" && toName != "":
		return invalidf("copying between containers is not supported")
	case fromName == "" && toName == "":
		return invalidf("must specify at least one container source")
	}
	cl, err := c.a.client()
	if err != nil {
		return err
	}
	if fromName != "" {
		return endOf(ctx, c.fromContainer(ctx, cl, fromName, from, to))
	}
	return endOf(ctx, c.toContainer(ctx, cl, from, toName, to))
}

// splitCopyArg cuts CONTAINER:PATH; a local path with a colon begins with / or
// a dot.
func splitCopyArg(arg string) (name, p string) {
	if filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	name, p, ok := strings.Cut(arg, ":")
	if !ok {
		return "", arg
	}
	return name, p
}

// copyPath is a path with what its ending says.
type copyPath struct {
	path     string // cleaned, absolute in a container
	contents bool   // ends in "/.": what is in it, not itself
	wantsDir bool   // ends in a slash or "/."
}

func parseCopyPath(p string) copyPath {
	contents := p == "." || strings.HasSuffix(p, "/.")
	return copyPath{path: p, contents: contents, wantsDir: contents || strings.HasSuffix(p, "/")}
}

func inContainer(p string) copyPath {
	c := parseCopyPath(p)
	c.path = path.Clean("/" + p)
	return c
}

// stat asks for a path in a container.
func statPath(ctx context.Context, cl *client.Client, name, p string) (container.PathStat, error) {
	var st container.PathStat
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodHead, Path: containerPath(name, "archive"), Query: url.Values{"path": {p}}})
	if err != nil {
		var api *client.Error
		if errors.As(err, &api) && api.Status == http.StatusNotFound { // an answer to HEAD has no text
			return st, classError{fmt.Sprintf("Could not find the file %s in container %s", p, name), errdefs.ErrNotFound}
		}
		return st, err
	}
	defer resp.Body.Close() //nolint:errcheck // empty
	return decodeStat(resp)
}

func decodeStat(resp *http.Response) (st container.PathStat, err error) {
	raw, err := base64.StdEncoding.DecodeString(resp.Header.Get("X-Docker-Container-Path-Stat"))
	if err != nil {
		return st, fmt.Errorf("unable to retrieve stat: %w", err)
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, fmt.Errorf("unable to retrieve stat: %w", err)
	}
	return st, nil
}

// resolveLink follows a symbolic link in a container, one level, as the daemon
// has resolved it.
func resolveLink(p string, st container.PathStat) string {
	if st.Mode&fs.ModeSymlink == 0 {
		return p
	}
	if path.IsAbs(st.LinkTarget) {
		return path.Clean(st.LinkTarget)
	}
	return path.Join(path.Dir(p), st.LinkTarget)
}

func (c *copier) fromContainer(ctx context.Context, cl *client.Client, name, from, to string) error {
	src := inContainer(from)
	ask := src.path
	if c.follow {
		if st, err := statPath(ctx, cl, name, src.path); err == nil {
			ask = resolveLink(src.path, st)
		}
	}
	q := ask
	if src.contents {
		q = strings.TrimSuffix(ask, "/") + "/."
	} else if src.wantsDir && ask != "/" {
		q += "/"
	}
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "archive"), Query: url.Values{"path": {q}}})
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if to == "-" {
		_, err := io.Copy(c.a.out, resp.Body)
		return err
	}
	st, err := decodeStat(resp)
	if err != nil {
		return err
	}
	if src.wantsDir && !st.Mode.IsDir() {
		return invalidf("not a directory: %s", from)
	}
	dir, as, err := localTarget(src, st.Mode.IsDir(), to)
	if err != nil {
		return err
	}
	o := archive.ExtractOptions{Name: as, Owner: c.archive, Warn: func(s string) { fmt.Fprintln(c.a.err, "WARNING: "+s) }}
	n, err := archive.Extract(resp.Body, dir, o)
	if err == nil {
		c.report(n, to)
	}
	return err
}

// report tells on a terminal what was copied.
func (c *copier) report(n int64, to string) {
	if f, ok := c.a.err.(*os.File); ok && !c.quiet && terminal.Is(f) {
		fmt.Fprintf(c.a.err, "Successfully copied %s to %s\n", size(n), to)
	}
}

// localTarget finds the directory to unpack into and the name to give.
func localTarget(src copyPath, srcDir bool, to string) (dir, as string, err error) {
	dst := parseCopyPath(to)
	local := filepath.Clean(to)
	st, err := os.Stat(local)
	base := path.Base(src.path)
	switch {
	case err == nil && st.IsDir() && (src.contents || base == "/"):
		return local, "", nil
	case err == nil && st.IsDir():
		return local, base, nil
	case err == nil && srcDir:
		return "", "", invalidf("cannot copy directory")
	case err == nil && dst.wantsDir:
		return "", "", invalidf("not a directory")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	case err != nil && !srcDir && dst.wantsDir:
		return "", "", invalidf("no such directory")
	}
	parent := filepath.Dir(local)
	if pst, perr := os.Stat(parent); perr != nil || !pst.IsDir() {
		return "", "", invalidf("invalid output path: directory %q does not exist", parent)
	}
	if err != nil && srcDir {
		if err := os.Mkdir(local, 0o755); err != nil {
			return "", "", err
		}
		return local, "", nil
	}
	return parent, filepath.Base(local), nil
}

func (c *copier) toContainer(ctx context.Context, cl *client.Client, from, name, to string) error {
	dst := inContainer(to)
	st, err := statPath(ctx, cl, name, dst.path)
	exists := err == nil
	if exists && st.Mode&fs.ModeSymlink != 0 {
		dst.path = resolveLink(dst.path, st)
		st, err = statPath(ctx, cl, name, dst.path)
		exists = err == nil
	}
	var api *client.Error
	if err != nil && !errdefs.IsNotFound(err) && errors.As(err, &api) && api.Status >= 500 {
		return err
	}
	if from == "-" {
		if exists && !st.Mode.IsDir() {
			return invalidf("destination \"%s:%s\" must be a directory", name, to)
		}
		return c.put(ctx, cl, name, dst.path, c.a.in)
	}
	dir, as, top, err := remoteTarget(from, dst, exists, st, c.follow)
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	var n int64
	go func() {
		w := &counter{w: pw}
		tw := tar.NewWriter(w)
		err := archive.Write(tw, top, archive.WriteOptions{Rename: as, FollowTop: c.follow || parseCopyPath(from).wantsDir})
		n = w.n
		_ = pw.CloseWithError(firstError(err, tw.Close()))
	}()
	if err := c.put(ctx, cl, name, dir, pr); err != nil {
		_ = pr.CloseWithError(err)
		return err
	}
	c.report(n, name+":"+to)
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// remoteTarget finds the container's directory to unpack into and the name
// that the top entry gets there.
func remoteTarget(from string, dst copyPath, exists bool, st container.PathStat, follow bool) (dir, as, top string, err error) {
	src := parseCopyPath(from)
	top = filepath.Clean(from)
	stat := os.Lstat
	if follow || src.wantsDir {
		stat = os.Stat
	}
	local, err := stat(top)
	if err != nil {
		return "", "", "", err
	}
	if src.wantsDir && !local.IsDir() {
		return "", "", "", invalidf("not a directory: %s", from)
	}
	base := filepath.Base(top)
	if base == "." || base == ".." || base == "/" {
		abs, err := filepath.Abs(top)
		if err != nil {
			return "", "", "", err
		}
		base = filepath.Base(abs)
	}
	switch {
	case exists && st.Mode.IsDir() && (src.contents || base == "/"):
		return dst.path, ".", top, nil
	case exists && st.Mode.IsDir():
		return dst.path, base, top, nil
	case exists && local.IsDir():
		return "", "", "", invalidf("cannot copy directory")
	case exists && dst.wantsDir:
		return "", "", "", invalidf("not a directory")
	case !exists && !local.IsDir() && dst.wantsDir:
		return "", "", "", invalidf("no such directory")
	}
	return path.Dir(dst.path), path.Base(dst.path), top, nil
}

func (c *copier) put(ctx context.Context, cl *client.Client, name, dir string, body io.Reader) error {
	q := url.Values{"path": {dir}, "noOverwriteDirNonDir": {"true"}}
	if c.archive {
		q.Set("copyUIDGID", "true")
	}
	return cl.Call(ctx, client.Request{Method: http.MethodPut, Path: containerPath(name, "archive"), Query: q, Body: body}, nil)
}
