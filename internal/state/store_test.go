package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dump(t *testing.T, s *Store, bucket string) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := s.ForEach(bucket, func(k string, v []byte) error {
		got[k] = string(v)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// abandon releases the files as a killed process would: nothing is folded.
func abandon(t *testing.T, s *Store) {
	t.Helper()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.folders.Wait()
	if err := errors.Join(s.journal.f.Close(), s.db.Close()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
}

func TestRoundTrip(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Store){
		"closed": func(t *testing.T, s *Store) {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"killed": abandon,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			steps := errors.Join(
				s.Put("a", "one", []byte("1")),
				s.PutDurable("a", "two", []byte("2")),
				s.Put("a", "empty", nil),
				s.Delete("a", "one"),
				s.Batch(Op{Bucket: "b", Key: "x", Value: []byte("y")}, Op{Bucket: "a", Key: "three", Value: []byte("3")}),
			)
			if steps != nil {
				t.Fatal(steps)
			}
			end(t, s)
			s = open(t, Options{Dir: dir})
			want := map[string]string{"two": "2", "three": "3", "empty": ""}
			if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
				t.Error(diff)
			}
			if _, err := s.Get("a", "one"); !errdefs.IsNotFound(err) {
				t.Errorf("deleted key: %v", err)
			}
			if v, err := s.Get("b", "x"); err != nil || string(v) != "y" {
				t.Errorf("Get = %q, %v", v, err)
			}
		})
	}
}

// Every prefix of the journal opens, holds a prefix of the changes, never half
// of a batch, and takes new ones.
func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := range 6 {
		v := []byte(fmt.Sprint(i))
		if err := s.Batch(Op{Bucket: "a", Key: "k", Value: v}, Op{Bucket: "b", Key: "k", Value: v}); err != nil {
			t.Fatal(err)
		}
	}
	abandon(t, s)
	whole, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for cut := range len(whole) + 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		a, b := dump(t, s, "a")["k"], dump(t, s, "b")["k"]
		if a != b || a < last {
			t.Errorf("cut at %d: a=%q b=%q after %q", cut, a, b, last)
		}
		last = a
		if err := s.Put("a", "new", []byte("n")); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		abandon(t, s)
		s, err = Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("cut at %d, second open: %v", cut, err)
		}
		if got := dump(t, s, "a"); got["new"] != "n" || got["k"] != a {
			t.Errorf("cut at %d: second open has %v", cut, got)
		}
		s.Close()
	}
	if last != "5" {
		t.Errorf("whole journal ends at %q", last)
	}
}

// Any flipped byte loses at most what follows it.
func TestCorruptJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := range 3 {
		if err := s.Put("a", fmt.Sprint(i), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	abandon(t, s)
	whole, _ := os.ReadFile(filepath.Join(dir, journalName))
	for at := journalHeader; at < len(whole); at++ {
		dir := t.TempDir()
		bad := append([]byte(nil), whole...)
		bad[at] ^= 0x40
		if err := os.WriteFile(filepath.Join(dir, journalName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		for k, v := range dump(t, s, "a") {
			if v != "value" {
				t.Errorf("flip at %d: %s = %q", at, k, v)
			}
		}
		s.Close()
	}
}

func TestNewerVersionIsRefusedUntouched(t *testing.T) {
	dir := t.TempDir()
	head := make([]byte, journalHeader+5)
	copy(head, journalMagic)
	binary.LittleEndian.PutUint32(head[8:], formatVersion+1)
	path := filepath.Join(dir, journalName)
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Dir: dir})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("err = %v", err)
	}
	if got, _ := os.ReadFile(path); !cmp.Equal(got, head) || exists(filepath.Join(dir, databaseName)) {
		t.Error("files were touched")
	}
}

func TestFoldKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, FoldBytes: 4 << 10})
	want := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				k, v := fmt.Sprintf("%d-%d", w, i%50), fmt.Sprintf("value-%d-%d", w, i)
				if err := s.Put("a", k, []byte(v)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				want[k] = v
				mu.Unlock()
				if i%10 == 0 {
					if _, err := s.Get("a", k); err != nil {
						t.Error(err)
					}
				}
			}
			if err := s.Delete("a", fmt.Sprintf("%d-0", w)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for w := range 8 {
		delete(want, fmt.Sprintf("%d-0", w))
	}
	if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
		t.Errorf("before restart: %s", diff)
	}
	abandon(t, s)
	s = open(t, Options{Dir: dir, FoldBytes: 4 << 10})
	if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
		t.Errorf("after restart: %s", diff)
	}
	if fi, err := os.Stat(filepath.Join(dir, databaseName)); err != nil || fi.Size() == 0 {
		t.Errorf("database: %v, %v", fi, err)
	}
}

// A rotation that was cut short between its renames loses nothing.
func TestKilledDuringRotation(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if err := s.Put("a", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	abandon(t, s)
	if err := os.Rename(filepath.Join(dir, journalName), filepath.Join(dir, journalOldName)); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if diff := cmp.Diff(map[string]string{"k": "v"}, dump(t, s, "a")); diff != "" {
		t.Error(diff)
	}
	if exists(filepath.Join(dir, journalOldName)) {
		t.Error("old journal is still there")
	}
}

// A file-size limit stands in for a full disk: the write fails half-way.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if err := s.Put("a", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	s.journal.f.Close()
	f, err := os.Open(filepath.Join(dir, journalName)) // read-only: every write fails
	if err != nil {
		t.Fatal(err)
	}
	s.journal.f = f
	if err := s.Put("a", "k", []byte("other")); !errors.Is(err, unix.EBADF) {
		t.Errorf("err = %v", err)
	}
	if v, _ := s.Get("a", "k"); string(v) != "v" {
		t.Errorf("value = %q", v)
	}
}

func TestSyncIsShared(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := s.PutDurable("a", fmt.Sprint(i), []byte("v")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.synced != s.written {
		t.Errorf("synced %d of %d", s.synced, s.written)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	val := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		if err := s.Put("a", fmt.Sprint(i%1000), val); err != nil {
			b.Fatal(err)
		}
	}
}
