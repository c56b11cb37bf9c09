package jsonfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-engine/wherry/logs"
)

var when = time.Date(2026, 3, 4, 5, 6, 7, 89000000, time.UTC)

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		name  string
		attrs map[string]string
		in    []string // written one after the other
		want  string
	}{
		{"a line", nil, []string{"hello\n"}, `{"log":"hello\n","stream":"stdout","time":"2026-03-04T05:06:07.089Z"}` + "\n"},
		{"no newline", nil, []string{"hello"}, `{"log":"hello","stream":"stdout","time":"2026-03-04T05:06:07.089Z"}` + "\n"},
		{"two writes", nil, []string{"hel", "lo\n"}, `{"log":"hello\n","stream":"stdout","time":"2026-03-04T05:06:07.089Z"}` + "\n"},
		{"empty line", nil, []string{"\n"}, `{"log":"\n","stream":"stdout","time":"2026-03-04T05:06:07.089Z"}` + "\n"},
		{"attributes", map[string]string{"k": "v"}, []string{"x\n"}, `{"log":"x\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-03-04T05:06:07.089Z"}` + "\n"},
		{"escapes", nil, []string{"\"\\\r\t\x00\x7f<>&\xff\u2028é\n"}, `{"log":"\"\\\r\u0009\u0000` + "\x7f" + `\u003c\u003e\u0026\ufffd\u2028é\n","stream":"stdout","time":"2026-03-04T05:06:07.089Z"}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w, err := NewWriter(WriterOptions{Path: path, Attrs: tt.attrs})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.in {
				if err := w.Write(logs.Stdout, []byte(s), when); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(when); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// read collects lines, partial ones marked.
func read(t testing.TB, path string, opts logs.ReadOptions) []string {
	t.Helper()
	opts.Stdout, opts.Stderr = true, true
	var got []string
	for m, err := range NewReader(path).Read(context.Background(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.Line))
	}
	return got
}

func TestLongLinesAreCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := NewWriter(WriterOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2*logs.MaxLine+10)
	exact := strings.Repeat("y", logs.MaxLine)
	if err := w.Write(logs.Stderr, []byte(long+"\n"+exact+"\n"), when); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := read(t, path, logs.ReadOptions{Tail: -1})
	want := []string{long[:logs.MaxLine], long[:logs.MaxLine], long[:10] + "\n", exact + "\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadsWhatDockerWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := `{"log":"plain\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}
{"log":"\u001b[31mred\u001b[0m \ud83d\ude00\n","stream":"stderr","time":"2026-01-02T03:04:06Z"}
{"log":"a","stream":"stdout","attrs":{"tag":"x"},"time":"2026-01-02T03:04:07.5Z"}
not json at all
{"stream":"stdout","time":"2026-01-02T03:04:08+01:00","log":"order\n"}
{"log":"cut sho`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for m, err := range NewReader(path).Read(context.Background(), logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %q %v %v", m.Stream, m.Time.UTC().Format(time.RFC3339Nano), m.Line, m.Partial, m.Attrs))
	}
	want := []string{
		`1 2026-01-02T03:04:05.123456789Z "plain\n" false map[]`,
		`2 2026-01-02T03:04:06Z "\x1b[31mred\x1b[0m 😀\n" false map[]`,
		`1 2026-01-02T03:04:07.5Z "a" true map[tag:x]`,
		`1 2026-01-02T02:04:08Z "order\n" false map[]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFullDiskDoesNotSpoilTheFile(t *testing.T) {
	w, err := NewWriter(WriterOptions{Path: "/dev/full"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(logs.Stdout, []byte("lost\n"), when); err == nil {
		t.Error("no error")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("\"\\\x00\xff\u2028<é\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		line := append([]byte(`{"log":"`), appendEscaped(nil, p)...)
		line = append(line, `","stream":"stdout","time":"2026-01-02T03:04:05Z"}`...)
		var rec struct{ Log string }
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want := strings.ToValidUTF8(string(p), "\x00")
		if utf8.Valid(p) && rec.Log != want {
			t.Fatalf("%q became %q", p, rec.Log)
		}
		if !utf8.Valid(p) && rec.Log != string([]rune(string(p))) {
			t.Fatalf("%q became %q", p, rec.Log)
		}
		var m logs.Message
		if !new(codec).fast(line, &m) || !bytes.Equal(m.Line, []byte(rec.Log)) {
			t.Fatalf("%q was read as %q", line, m.Line)
		}
	})
}

// FuzzNext holds the hand-written parser to encoding/json.
func FuzzNext(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-02T03:04:05.1Z"}`))
	f.Add([]byte(`{"log":"\ud83d\ude00","stream":"stderr","time":"2026-01-02T03:04:05.1Z"}`))
	f.Add([]byte(`{"log":"\u00e9","stream":"stderr","attrs":{"a":"b"},"time":"2026-01-02T03:04:05.1Z"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		var fast, slow logs.Message
		c := new(codec)
		if !c.fast(p, &fast) {
			return
		}
		if !json.Valid(p) || !utf8.Valid(p) {
			return // it need not notice damage
		}
		if !c.slow(p, &slow) {
			return
		}
		if !bytes.Equal(fast.Line, slow.Line) || fast.Stream != slow.Stream || !fast.Time.Equal(slow.Time) {
			t.Fatalf("%q: %q %v %v, %q %v %v", p, fast.Line, fast.Stream, fast.Time, slow.Line, slow.Stream, slow.Time)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, tt := range []struct{ name, line string }{{"73", strings.Repeat("0123456789abcdef", 4) + "01234567\n"}, {"2", "y\n"}} {
		b.Run(tt.name, func(b *testing.B) {
			chunk := bytes.Repeat([]byte(tt.line), 64<<10/len(tt.line))
			w, err := NewWriter(WriterOptions{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 50 << 20, MaxFiles: 2})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(logs.Stdout, chunk, when); err != nil {
					b.Fatal(err)
				}
			}
			_ = w.Close()
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 16 << 20
	line := strings.Repeat("0123456789abcdef", 4) + "01234567\n"
	path := filepath.Join(b.TempDir(), "log")
	w, err := NewWriter(WriterOptions{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Write(logs.Stdout, bytes.Repeat([]byte(line), size/len(line)), when); err != nil {
		b.Fatal(err)
	}
	_ = w.Close()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for m, err := range NewReader(path).Read(context.Background(), logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}) {
			if err != nil {
				b.Fatal(err)
			}
			n += len(m.Line)
		}
		if n < size-len(line) {
			b.Fatal(n)
		}
	}
}
