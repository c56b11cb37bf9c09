package integration

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

const (
	largeBlob = 8 << 20  // what counts as large, in bytes
	heldAfter = 20 << 20 // bytes of a large blob that pass before the proxy holds it
)

// slowProxy passes everything on to a registry, except that it stops in the
// middle of large blobs while it is holding.
type slowProxy struct {
	*httptest.Server
	mu      sync.Mutex
	holding bool
	large   []*transfer
}

// transfer is one answer with a large blob, or the rest of one.
type transfer struct {
	asked string // Range header
	whole int64  // size of the blob
	sent  int64
}

func newSlowProxy(t *testing.T, registry string) *slowProxy {
	t.Helper()
	p := &slowProxy{}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	forward.ModifyResponse = func(r *http.Response) error {
		whole := r.ContentLength
		if _, total, ok := strings.Cut(r.Header.Get("Content-Range"), "/"); ok {
			whole, _ = strconv.ParseInt(total, 10, 64)
		}
		if r.Request.Method != http.MethodGet || whole < largeBlob {
			return nil
		}
		tr := &transfer{asked: r.Request.Header.Get("Range"), whole: whole}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.large = append(p.large, tr)
		r.Body = &held{ReadCloser: r.Body, p: p, tr: tr, gone: r.Request.Context()}
		return nil
	}
	p.Server = httptest.NewServer(forward)
	t.Cleanup(p.Close)
	return p
}

// hold makes large blobs stop in the middle, or lets all pass that come later.
func (p *slowProxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding, p.large = on, nil
}

// transfers are those since hold was called.
func (p *slowProxy) transfers() []transfer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []transfer
	for _, tr := range p.large {
		list = append(list, *tr)
	}
	return list
}

// held is the body of a large answer.
type held struct {
	io.ReadCloser
	p    *slowProxy
	tr   *transfer
	gone context.Context //nolint:containedctx // of the request that this answers
}

func (h *held) Read(b []byte) (int, error) {
	h.p.mu.Lock()
	stop := h.p.holding && h.tr.sent >= heldAfter
	h.p.mu.Unlock()
	if stop {
		<-h.gone.Done()
		return 0, h.gone.Err()
	}
	n, err := h.ReadCloser.Read(b)
	h.p.mu.Lock()
	h.tr.sent += int64(n)
	h.p.mu.Unlock()
	return n, err
}

// partial is how much of a large blob the daemon has on its disk.
func partial(t *testing.T, d *testenv.Daemon) int64 {
	t.Helper()
	files, err := filepath.Glob(d.DataRoot + "/content/ingest/*/data")
	if err != nil {
		t.Fatal(err)
	}
	var most int64
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			most = max(most, st.Size())
		}
	}
	return most
}

// TestPullResumes ends a pull in the middle of a large layer, in each of the
// ways that happens, and sees that the next pull asks for the rest alone.
func TestPullResumes(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	testenv.Images(t)
	proxy := newSlowProxy(t, testenv.Registry(t).Addr())
	ref := strings.TrimPrefix(proxy.URL, "http://") + "/debian"
	d := testenv.Start(t, testenv.Options{})
	cli := d.Docker(t)
	restart := func(end func() error) func(context.CancelFunc) error {
		return func(context.CancelFunc) error {
			if err := end(); err != nil {
				return err
			}
			return d.Launch()
		}
	}
	for _, c := range []struct {
		name string
		end  func(cancel context.CancelFunc) error
	}{
		{"daemon killed", restart(d.Kill)},
		{"daemon stopped", restart(d.Stop)},
		{"client gone", func(cancel context.CancelFunc) error { cancel(); return nil }},
	} {
		proxy.hold(true)
		ctx, cancel := context.WithCancel(t.Context())
		pull := cli.Command(ctx, "pull", ref)
		if err := pull.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, c.name+": the layer is half there", func() bool { return partial(t, d) > heldAfter-1<<20 })
		if err := c.end(cancel); err != nil {
			t.Fatalf("%s: %v\n%s", c.name, err, d.LogTail())
		}
		if err := pull.Wait(); err == nil {
			t.Errorf("%s: the pull succeeded", c.name)
		}
		cancel()
		first := proxy.transfers()
		proxy.hold(false)
		cli.OK(t, "pull", ref)
		rest := proxy.transfers()
		if len(first) != 1 || len(rest) != 1 {
			t.Fatalf("%s: transfers %+v, then %+v; want one each", c.name, first, rest)
		}
		from, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(rest[0].asked, "bytes="), "-"), 10, 64)
		if err != nil || from <= heldAfter-1<<20 || from > first[0].sent {
			t.Errorf("%s: asked for %q, after %d bytes were sent", c.name, rest[0].asked, first[0].sent)
		}
		if got, want := rest[0].sent, rest[0].whole-from; got != want {
			t.Errorf("%s: %d bytes came, want the remaining %d of %d", c.name, got, want, rest[0].whole)
		}
		equal(t, c.name+": runs", cli.OK(t, "run", "--rm", "--network", "none", ref, "cat", "/etc/debian_version")[:2], "12")
		cli.OK(t, "rmi", "-f", ref)
		cli.OK(t, "image", "prune", "-f")
		testenv.Eventually(t, c.name+": nothing is left of the layer", func() bool {
			files, err := filepath.Glob(d.DataRoot + "/content/blobs/sha256/*")
			return err == nil && len(files) == 0
		})
	}
}
