package logs

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	std := Options{MaxSize: DefaultMaxSize, MaxFiles: DefaultMaxFiles, BufferSize: DefaultBuffer}
	with := func(change func(*Options)) Options { o := std; change(&o); return o }
	for _, tt := range []struct {
		name, driver string
		opts         map[string]string
		want         Options
		err          string
	}{
		{"defaults", JSONFile, nil, std, ""},
		{"none takes anything", None, map[string]string{"max-size": "1m"}, std, ""},
		{"size and files", JSONFile, map[string]string{"max-size": "10m", "max-file": "3"}, with(func(o *Options) { o.MaxSize, o.MaxFiles = 10<<20, 3 }), ""},
		{"unlimited", JSONFile, map[string]string{"max-size": "-1"}, with(func(o *Options) { o.MaxSize = -1 }), ""},
		{"non-blocking", Local, map[string]string{"mode": "non-blocking", "max-buffer-size": "4k"}, with(func(o *Options) { o.Compress, o.NonBlocking, o.BufferSize = true, true, 4096 }), ""},
		{"labels", JSONFile, map[string]string{"labels": "a,b", "env": "C", "tag": "{{.Name}}"}, std, ""},
		{"unknown option", JSONFile, map[string]string{"x": "1"}, std, "unknown log opt 'x' for json-file log driver"},
		{"unknown driver", "nope", nil, std, "no log driver named 'nope' is registered"},
		{"bad size", JSONFile, map[string]string{"max-size": "big"}, std, "invalid size: 'big'"},
		{"bad number", JSONFile, map[string]string{"max-file": "0"}, std, "max-file cannot be less than 1"},
		{"bad mode", JSONFile, map[string]string{"mode": "sometimes"}, std, "logging mode not supported: sometimes"},
		{"buffer without mode", JSONFile, map[string]string{"max-buffer-size": "1m"}, std, "only supported with 'mode=non-blocking'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.driver, tt.opts)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !errdefs.IsInvalidArgument(err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "10": 10, "1k": 1024, "1kb": 1024, "1KiB": 1024, "1.5m": 3 << 19, "2g": 2 << 30, " 7 b ": 7, "-1": -1} {
		if got, err := Size(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "1x", "-2", "1e30g", "k"} {
		if got, err := Size(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Fuzz(func(t *testing.T, p []byte, step int) {
		if step <= 0 || step > 1<<16 {
			step = 7
		}
		p = []byte(strings.Repeat(string(p), 50))
		var sp Splitter
		var got []byte
		emit := func(_ Stream, line []byte, _ bool) error {
			if i := strings.IndexByte(string(line), '\n'); i >= 0 && i != len(line)-1 || len(line) > MaxLine+1 || len(line) == 0 {
				t.Fatalf("not a line: %q", line)
			}
			got = append(got, line...)
			return nil
		}
		for rest := p; len(rest) > 0; {
			n := min(step, len(rest))
			if err := sp.Write(Stdout, rest[:n], emit); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := sp.Flush(emit); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(p) {
			t.Fatal("text was changed")
		}
	})
}
