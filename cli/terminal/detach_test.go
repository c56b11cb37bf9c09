package terminal

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseDetachKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-@,x": "\x00x", "ctrl-[": "\x1b", `ctrl-\`: "\x1c", "ctrl-_,,": "",
	} {
		got, err := ParseDetachKeys(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q is accepted", in)
			}
			continue
		}
		if err != nil || string(got) != want {
			t.Errorf("%q: got %q %v", in, got, err)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "ab", "ctrl-A"} {
		if _, err := ParseDetachKeys(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestDetachReader(t *testing.T) {
	for _, c := range []struct {
		name, in, out string
		detached      bool
	}{
		{"nothing", "", "", false},
		{"no keys", "hello", "hello", false},
		{"keys", "ab\x10\x11cd", "ab", true},
		{"first key only", "a\x10b", "a\x10b", false},
		{"first key at the end", "a\x10", "a\x10", false},
		{"first key twice", "a\x10\x10\x11", "a\x10", true},
		{"second key alone", "a\x11", "a\x11", false},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
			got, err := io.ReadAll(NewDetachReader(r, []byte{16, 17}))
			if string(got) != c.out || errors.Is(err, ErrDetached) != c.detached {
				t.Errorf("%s: got %q %v", c.name, got, err)
			}
		}
	}
}
