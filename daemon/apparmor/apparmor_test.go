package apparmor

import "testing"

// TestLack needs a kernel with AppArmor: `make test-v2` has one.
func TestLack(t *testing.T) {
	if !enabled() {
		if Supported() || Lack() != "" {
			t.Errorf("without AppArmor: %v %q", Supported(), Lack())
		}
		return
	}
	if !Supported() || Lack() != "" {
		t.Fatalf("%v %q", Supported(), Lack())
	}
	t.Setenv("PATH", t.TempDir())
	if Supported() || Lack() != "apparmor_parser is not installed" {
		t.Errorf("without the parser: %v %q", Supported(), Lack())
	}
}
