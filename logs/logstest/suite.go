// Package logstest holds every driver that keeps a log to the same behaviour.
package logstest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-engine/wherry/logs"
)

// Options of a writer under test.
type Options struct {
	Path     string
	MaxSize  int64
	MaxFiles int
	Compress bool
	Attrs    map[string]string
}

// Driver opens writers and readers.
type Driver struct {
	NewWriter func(Options) (logs.Writer, error)
	NewReader func(path string) logs.Reader
}

// Run tries a driver.
func Run(t *testing.T, d Driver) {
	t.Run("streams and times", d.streams)
	t.Run("tail", d.tail)
	t.Run("since and until", d.since)
	t.Run("rotation", d.rotation)
	t.Run("follow", d.follow)
	t.Run("follow through rotations", d.followRotations)
	t.Run("append", d.reopen)
	t.Run("torn end", d.torn)
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func (d Driver) writer(t *testing.T, o Options) logs.Writer {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "c.log")
	}
	w, err := d.NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lines reads all that is wanted, as "stream text".
func (d Driver) lines(t *testing.T, path string, o logs.ReadOptions) []string {
	t.Helper()
	if !o.Stdout && !o.Stderr {
		o.Stdout, o.Stderr = true, true
	}
	got := []string{}
	for m, err := range d.NewReader(path).Read(t.Context(), o) {
		must(t, err)
		got = append(got, fmt.Sprintf("%d %s", m.Stream, m.Line))
	}
	return got
}

func numbered(from, to int) []string {
	s := []string{}
	for i := from; i <= to; i++ {
		s = append(s, fmt.Sprintf("1 line %d\n", i))
	}
	return s
}

func (d Driver) fill(t *testing.T, w logs.Writer, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		must(t, w.Write(logs.Stdout, fmt.Appendf(nil, "line %d\n", i), t0.Add(time.Duration(i)*time.Second)))
	}
}

func check(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func (d Driver) streams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	check(t, []string{}, d.lines(t, path, logs.ReadOptions{Tail: -1}))
	w := d.writer(t, Options{Path: path, Attrs: map[string]string{"label": "x"}})
	must(t, w.Write(logs.Stdout, []byte("out one\nout t"), t0))
	must(t, w.Write(logs.Stderr, []byte("err\n"), t0))
	must(t, w.Write(logs.Stdout, []byte("wo\nrest"), t0))
	must(t, w.Close())
	check(t, []string{"1 out one\n", "2 err\n", "1 out two\n", "1 rest"}, d.lines(t, path, logs.ReadOptions{Tail: -1}))
	check(t, []string{"2 err\n"}, d.lines(t, path, logs.ReadOptions{Tail: -1, Stderr: true}))
	for m, err := range d.NewReader(path).Read(t.Context(), logs.ReadOptions{Tail: 4, Stdout: true}) {
		must(t, err)
		if !m.Time.Equal(t0) || m.Attrs["label"] != "x" {
			t.Errorf("time %v, attributes %v", m.Time, m.Attrs)
		}
		break
	}
}

func (d Driver) tail(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "c.log")
		w := d.writer(t, Options{Path: path, MaxSize: 1000, MaxFiles: 5, Compress: compress})
		d.fill(t, w, 1, 40)
		must(t, w.Close())
		for _, n := range []int{0, 1, 3, 17, 30, 40, 100} {
			check(t, numbered(max(41-n, 1), 40), d.lines(t, path, logs.ReadOptions{Tail: n}))
		}
		check(t, numbered(1, 40), d.lines(t, path, logs.ReadOptions{Tail: -1}))
	}
}

func (d Driver) since(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	w := d.writer(t, Options{Path: path})
	d.fill(t, w, 1, 20)
	must(t, w.Close())
	at := func(i int) time.Time { return t0.Add(time.Duration(i) * time.Second) }
	check(t, numbered(15, 20), d.lines(t, path, logs.ReadOptions{Tail: -1, Since: at(15)}))
	check(t, numbered(1, 5), d.lines(t, path, logs.ReadOptions{Tail: -1, Until: at(5)}))
	check(t, numbered(8, 9), d.lines(t, path, logs.ReadOptions{Tail: -1, Since: at(8), Until: at(9)}))
	check(t, numbered(18, 20), d.lines(t, path, logs.ReadOptions{Tail: 3, Since: at(2)}))
}

func (d Driver) rotation(t *testing.T) {
	for _, tt := range []struct {
		files    int
		compress bool
	}{{1, false}, {2, false}, {3, false}, {3, true}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "c.log")
		w := d.writer(t, Options{Path: path, MaxSize: 2000, MaxFiles: tt.files, Compress: tt.compress})
		d.fill(t, w, 1, 500)
		must(t, w.Close())
		got := d.lines(t, path, logs.ReadOptions{Tail: -1})
		check(t, numbered(501-len(got), 500), got)
		all, err := os.ReadDir(dir)
		must(t, err)
		if len(all) != tt.files {
			t.Errorf("%d files instead of %d: %v", len(all), tt.files, all)
		}
		for _, e := range all {
			if fi, err := e.Info(); err != nil || fi.Size() > 2200 {
				t.Errorf("%s has %d bytes, %v", e.Name(), fi.Size(), err)
			}
			if want := tt.compress && e.Name() != "c.log"; strings.HasSuffix(e.Name(), ".gz") != want {
				t.Errorf("%s is compressed or is not", e.Name())
			}
		}
	}
}

func (d Driver) follow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan string, 100)
	go func() {
		defer close(got)
		for m, err := range d.NewReader(path).Read(ctx, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true, Follow: true, Done: done}) {
			if err != nil {
				got <- err.Error()
				return
			}
			got <- fmt.Sprintf("%d %s", m.Stream, m.Line)
		}
	}()
	w := d.writer(t, Options{Path: path}) // made while it is being followed
	for i := 1; i <= 3; i++ {
		d.fill(t, w, i, i)
		if s := <-got; s != numbered(i, i)[0] {
			t.Fatalf("got %q", s)
		}
	}
	must(t, w.Write(logs.Stdout, []byte("last"), t0))
	must(t, w.Close())
	close(done)
	rest := []string{}
	for s := range got {
		rest = append(rest, s)
	}
	check(t, []string{"1 last"}, rest)

	fctx, fcancel := context.WithCancel(t.Context())
	defer fcancel()
	n := 0
	var last error
	for _, err := range d.NewReader(path).Read(fctx, logs.ReadOptions{Tail: 1, Stdout: true, Follow: true}) {
		n++
		last = err
		fcancel()
	}
	if n != 2 || last == nil {
		t.Errorf("a cancelled reader yielded %d times, %v", n, last)
	}
}

func (d Driver) followRotations(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "c.log")
		w := d.writer(t, Options{Path: path, MaxSize: 20000, MaxFiles: 200, Compress: compress})
		const last = 20000
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.fill(t, w, 1, last)
			_ = w.Close()
		}()
		i := 0
		for m, err := range d.NewReader(path).Read(t.Context(), logs.ReadOptions{Tail: -1, Stdout: true, Follow: true, Done: done}) {
			must(t, err)
			i++
			if want := fmt.Sprintf("line %d\n", i); string(m.Line) != want {
				t.Fatalf("compress %v: got %q instead of %q", compress, m.Line, want)
			}
		}
		if i != last {
			t.Errorf("compress %v: %d lines of %d", compress, i, last)
		}
	}
}

func (d Driver) reopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	for i := 1; i <= 3; i++ {
		w := d.writer(t, Options{Path: path})
		d.fill(t, w, i, i)
		must(t, w.Close())
	}
	check(t, numbered(1, 3), d.lines(t, path, logs.ReadOptions{Tail: -1}))
}

// torn cuts the last record as a crash may, and goes on writing.
func (d Driver) torn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	w := d.writer(t, Options{Path: path})
	d.fill(t, w, 1, 3)
	must(t, w.Close())
	fi, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, fi.Size()-5))
	check(t, numbered(1, 2), d.lines(t, path, logs.ReadOptions{Tail: -1}))
	w = d.writer(t, Options{Path: path})
	d.fill(t, w, 4, 5)
	must(t, w.Close())
	want := append(numbered(1, 2), numbered(4, 5)...)
	check(t, want, d.lines(t, path, logs.ReadOptions{Tail: -1}))
	check(t, want[1:], d.lines(t, path, logs.ReadOptions{Tail: 3}))
}
