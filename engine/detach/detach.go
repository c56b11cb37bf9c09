// Package detach reads the key sequences that detach a client from a container.
package detach

import (
	"fmt"
	"strings"
)

// Default is the sequence used when none is given: ctrl-p, ctrl-q.
func Default() []byte { return []byte{16, 17} }

// Parse reads a comma separated sequence of single characters and ctrl-KEY,
// where KEY is a letter or one of @ [ \ ] ^ _. Empty gives Default.
func Parse(s string) ([]byte, error) {
	if s == "" {
		return Default(), nil
	}
	var out []byte
	for part := range strings.SplitSeq(s, ",") {
		if len(part) == 1 {
			out = append(out, part[0])
			continue
		}
		key, ok := strings.CutPrefix(part, "ctrl-")
		if !ok || len(key) != 1 {
			return nil, fmt.Errorf("unknown key %q", part)
		}
		switch k := key[0]; {
		case k >= 'a' && k <= 'z':
			out = append(out, k-'a'+1)
		case k == '@':
			out = append(out, 0)
		case k >= '[' && k <= '_':
			out = append(out, k-'['+27)
		default:
			return nil, fmt.Errorf("unknown key %q", part)
		}
	}
	return out, nil
}
