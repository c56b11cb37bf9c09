package command

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestBriefRecord: only what says that it needs no specification is read
// without, which records of older builds do not.
func TestBriefRecord(t *testing.T) {
	g := &globals{root: t.TempDir()}
	for name, bare := range map[string]bool{"bare": true, "other": false} {
		if err := os.Mkdir(g.dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		r := &record{head: head{Version: recordVersion, ID: name, Pid: 7, Bare: bare}, Spec: &specs.Spec{Hostname: "h"}}
		if err := g.write(r); err != nil {
			t.Fatal(err)
		}
		if err := g.show(r); err != nil {
			t.Fatal(err)
		}
		for _, brief := range []bool{true, false} {
			got, err := g.read(name, brief)
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != name || got.Pid != 7 || (got.Spec == nil) != (bare && brief) {
				t.Errorf("%s, brief %t: %+v", name, brief, got)
			}
		}
	}
}
