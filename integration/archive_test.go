package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// archive makes a tar of links ("name -> target") and files ("name").
func archive(t *testing.T, entries map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range entries {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(content))}
		if to, link := strings.CutPrefix(content, "-> "); link {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, to, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestArchivesOfAnyType sends archives as clients do that say nothing of what
// they send, or, as curl does, that it is a form.
func TestArchivesOfAnyType(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	saved := cli.Try(t, "save", image)
	if saved.Code != 0 {
		t.Fatal(saved.All())
	}
	box := detached(t, cli, image, "sleep", "1000")
	for _, contentType := range []string{"", "application/x-www-form-urlencoded", "application/x-tar", "nonsense"} {
		file := name(t)
		for path, r := range map[string]struct {
			method string
			body   []byte
		}{
			"/containers/" + box + "/archive?path=/tmp": {http.MethodPut, archive(t, map[string]string{file: "content"})},
			"/images/load":                          {http.MethodPost, []byte(saved.Stdout)},
			"/images/create?fromSrc=-&repo=" + file: {http.MethodPost, archive(t, map[string]string{"f": "content"})},
			"/build?q=1":                            {http.MethodPost, archive(t, map[string]string{"Dockerfile": "FROM " + image + "\n"})},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, r.method, "http://engine"+path, bytes.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			if contentType != "" {
				req.Header.Set("Content-Type", contentType)
			}
			resp, err := d.HTTP().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || bytes.Contains(answer, []byte("errorDetail")) {
				t.Errorf("%s %s as %q: %d %s %v", r.method, path, contentType, resp.StatusCode, answer, err)
			}
		}
		equal(t, "what was put there", cli.OK(t, "exec", box, "cat", "/tmp/"+file), "content")
	}
}

// TestLinksInPlaceOfFiles starts images in which the files that the engine
// writes are links to where no file can be made.
func TestLinksInPlaceOfFiles(t *testing.T) {
	t.Parallel()
	d := shared(t)
	d.Image(t, "busybox")
	cli := d.Docker(t)
	for to, n := range map[string]string{
		"/proc/nosuch": "missing", "../proc/1/nosuch/NAME": "deep", "/proc/self/fd/0": "magic", "NAME": "loop", "/sys/NAME": "sys", "/nowhere/at/NAME": "absent",
	} {
		links := map[string]string{}
		for _, file := range []string{"hosts", "hostname", "resolv.conf"} {
			links["etc/"+file] = "-> " + strings.ReplaceAll(to, "NAME", file)
		}
		base := testenv.NeedsProgram(t, "busybox")
		flat := "links:" + n
		cli.OKInput(t, bytes.NewReader(archive(t, links)), "import", "-", flat)
		t.Cleanup(func() { cli.Try(t, "rmi", flat) })
		out := cli.OK(t, "run", "--rm", "-h", "port", "-v", base+":/busybox:ro", flat, "/busybox", "cat", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
		for _, want := range []string{"\tport", "\nport\n", "nameserver "} {
			contains(t, to, out, want)
		}
		equal(t, to+" in a volume's place", cli.OK(t, "run", "--rm", "-v", base+":/busybox:ro", "-v", "/etc/hostname:/etc/hosts:ro", flat, "/busybox", "sh", "-c", "/busybox wc -l </etc/hosts"), "1")
	}
}
