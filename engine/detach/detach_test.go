package detach

import (
	"bytes"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string][]byte{
		"": {16, 17}, "ctrl-a": {1}, "ctrl-@,a,ctrl-_": {0, 'a', 31}, "ctrl-[": {27}, "x,y": {'x', 'y'},
		"ctrl-": nil, "ctrl-A": nil, "ab": nil, "a,,b": nil,
	} {
		got, err := Parse(in)
		if (err == nil) != (want != nil) || !bytes.Equal(got, want) {
			t.Errorf("%q: %v %v, want %v", in, got, err, want)
		}
	}
}
