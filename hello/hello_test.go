package hello_test

import (
	"archive/tar"
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/hello"
)

func TestArchiveIsALayoutOrAbsent(t *testing.T) {
	r, err := hello.Archive()
	if errdefs.IsNotFound(err) {
		t.Logf("built without the image: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	seen := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[h.Name] = true
	}
	for _, want := range []string{"oci-layout", "index.json", "manifest.json"} {
		if !seen[want] {
			t.Errorf("archive has no %s", want)
		}
	}
}
