package supervisor

import "bytes"

// keyMatcher finds the detach sequence in a client's input.
type keyMatcher struct {
	keys []byte
	have int // how many of them were typed
}

func newKeyMatcher(keys []byte) *keyMatcher {
	if len(keys) == 0 {
		return nil
	}
	return &keyMatcher{keys: keys}
}

// filter returns the input without the sequence, and whether it was completed;
// what follows it is dropped. The beginning of a sequence is held back until
// the next key shows that it is none.
func (m *keyMatcher) filter(p []byte) (out []byte, detached bool) {
	if m.have == 0 && bytes.IndexByte(p, m.keys[0]) < 0 {
		return p, false
	}
	out = make([]byte, 0, len(p)+m.have)
	for _, b := range p {
		if b != m.keys[m.have] && m.have > 0 {
			out = append(out, m.keys[:m.have]...)
			m.have = 0
		}
		if b != m.keys[m.have] {
			out = append(out, b)
			continue
		}
		m.have++
		if m.have == len(m.keys) {
			m.have = 0
			return out, true
		}
	}
	return out, false
}
