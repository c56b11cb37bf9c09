package integration

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestCopy(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n, dir := name(t), t.TempDir()
		write(t, filepath.Join(dir, "src/a/file"), "content")
		if err := os.Symlink("file", filepath.Join(dir, "src/a/link")); err != nil {
			t.Fatal(err)
		}
		detached(t, cli, "--name", n, image, "sleep", "1000")
		cli.OK(t, "cp", filepath.Join(dir, "src"), n+":/copied")
		equal(t, "in", cli.OK(t, "exec", n, "sh", "-c", "cat /copied/a/file; readlink /copied/a/link"), "contentfile")
		cli.OK(t, "cp", filepath.Join(dir, "src")+"/.", n+":/tmp")
		equal(t, "contents of", cli.OK(t, "exec", n, "cat", "/tmp/a/file"), "content")

		cli.OK(t, "exec", n, "sh", "-c", "mkdir /out; echo back >/out/x; chmod 600 /out/x; ln -s /etc/passwd /out/p")
		cli.OK(t, "cp", n+":/out", filepath.Join(dir, "fetched"))
		equal(t, "out", read(t, filepath.Join(dir, "fetched/x")), "back\n")
		cli.OK(t, "cp", "-L", n+":/out/p", filepath.Join(dir, "followed"))
		contains(t, "followed inside the container", read(t, filepath.Join(dir, "followed")), "an ordinary user")

		tr := tar.NewReader(strings.NewReader(cli.Try(t, "cp", n+":/out/x", "-").Stdout))
		h, err := tr.Next()
		if err != nil || h.Name != "x" || h.Mode&0o777 != 0o600 {
			t.Errorf("tar on standard output: %v %v", h, err)
		}
		cli.Fails(t, 1, "nosuch", "cp", n+":/nosuch", dir)
		cli.Fails(t, 1, "", "cp", filepath.Join(dir, "nosuch"), n+":/")
		cli.OK(t, "stop", "-t", "0", n)
		cli.OK(t, "cp", n+":/copied/a/file", filepath.Join(dir, "stopped"))
		equal(t, "from a stopped container", read(t, filepath.Join(dir, "stopped")), "content")
	})
}

// TestCopyStaysInside follows links that point out of the container.
func TestCopyStaysInside(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n, dir := name(t), t.TempDir()
	detached(t, cli, "--name", n, image, "sleep", "1000")
	cli.OK(t, "exec", n, "ln", "-s", "/../../../.."+dir, "/escape")
	write(t, filepath.Join(dir, "secret"), "of the host")
	write(t, filepath.Join(dir, "payload"), "x")
	cli.Try(t, "cp", n+":/escape/secret", filepath.Join(dir, "stolen"))
	if _, err := os.Stat(filepath.Join(dir, "stolen")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file of the host was read through a link in the container")
	}
	cli.Try(t, "cp", filepath.Join(dir, "payload"), n+":/escape/planted")
	if _, err := os.Stat(filepath.Join(dir, "planted")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file was written to the host through a link in the container")
	}
}

func TestDiffExportCommit(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		cli.OK(t, "run", "--name", n, image, "sh", "-c", "echo new >/added; rm /etc/nsswitch.conf; echo x >>/etc/group")
		defer cli.OK(t, "rm", n)
		equal(t, "diff", sorted(cli.OK(t, "diff", n)), "A /added\nC /etc\nC /etc/group\nD /etc/nsswitch.conf")

		names := map[string]bool{}
		for tr := tar.NewReader(strings.NewReader(cli.Try(t, "export", n).Stdout)); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names[strings.TrimSuffix(h.Name, "/")] = true
		}
		if !names["added"] || !names["bin/busybox"] || names["etc/nsswitch.conf"] {
			t.Errorf("export has the wrong files: %d of them", len(names))
		}

		made := strings.ToLower(n) + ":committed"
		cli.OK(t, "commit", "-m", "a message", "-c", "ENV MADE=yes", "-c", `CMD ["sh","-c","cat /added; echo $MADE"]`, n, made)
		defer cli.OK(t, "rmi", made)
		equal(t, "the committed image", cli.OK(t, "run", "--rm", made), "new\nyes")
		cli.Fails(t, 1, "", "run", "--rm", made, "test", "-e", "/etc/nsswitch.conf")
	})
}

func sorted(lines string) string {
	parts := strings.Split(lines, "\n")
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(data, "\x00"))
}
