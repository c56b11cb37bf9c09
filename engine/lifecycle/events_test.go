package lifecycle

import "testing"

// TestAcksAreInOrder: what ends in any order is acknowledged up to the first
// that has not ended, by one at a time.
func TestAcksAreInOrder(t *testing.T) {
	var a acks
	for seq := uint64(1); seq <= 4; seq++ {
		a.begin(seq)
	}
	steps := []struct {
		end  uint64
		due  bool
		take uint64 // 0: nobody takes
	}{
		{3, false, 0}, {1, true, 0}, {2, false, 3}, {4, true, 4},
	}
	for _, s := range steps {
		if due := a.end(s.end); due != s.due {
			t.Errorf("end of %d: due %v", s.end, due)
		}
		if s.take != 0 {
			if upto := a.take(); upto != s.take {
				t.Errorf("after %d: up to %d, want %d", s.end, upto, s.take)
			}
		}
	}
}
