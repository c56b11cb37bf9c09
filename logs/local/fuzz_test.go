package local

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/logs"
)

// FuzzRead reads arbitrary files: errors are fine, crashes and endless loops are not.
func FuzzRead(f *testing.F) {
	path := filepath.Join(f.TempDir(), "log")
	w, err := NewWriter(WriterOptions{Path: path, Attrs: map[string]string{"a": "b"}})
	if err != nil {
		f.Fatal(err)
	}
	if err := w.Write(logs.Stdout, []byte("one\ntwo\n"), time.Unix(1, 2)); err != nil {
		f.Fatal(err)
	}
	_ = w.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(good[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tail := range []int{-1, 2} {
			n := 0
			for range NewReader(path).Read(context.Background(), logs.ReadOptions{Tail: tail, Stdout: true, Stderr: true}) {
				n++
			}
			if n > len(b) {
				t.Fatalf("%d records in %d bytes", n, len(b))
			}
		}
		if _, err := whole(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Logf("not repairable: %v", err)
		}
	})
}
