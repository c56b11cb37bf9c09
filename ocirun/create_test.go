package ocirun

import (
	"testing"
)

func TestRunTrue(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	res := mustRun(t, r, sh(root, "echo hello; hostname; id; exit 7"))
	if res.code != 7 || res.out != "hello\nbox\nuid=0(root) gid=0(root)\n" {
		t.Fatalf("got %+v", res)
	}
}

func BenchmarkRun(b *testing.B) {
	r := newRuntime(b)
	root := busyboxRoot(b)
	for b.Loop() {
		if res := mustRun(b, r, &CreateRequest{Spec: testSpec(root, "/bin/true")}); res.code != 0 {
			b.Fatalf("%+v", res)
		}
	}
}
