package stubs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-engine/wherry/snapshot"
)

func TestChanges(t *testing.T) {
	all := []snapshot.Change{
		{Path: "/dev", Kind: snapshot.Added}, {Path: "/etc"}, {Path: "/etc/hosts", Kind: snapshot.Added}, {Path: "/x", Kind: snapshot.Added},
	}
	if diff := cmp.Diff([]snapshot.Change{{Path: "/x", Kind: snapshot.Added}}, Changes(all)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	all = append(all, snapshot.Change{Path: "/etc/own", Kind: snapshot.Added})
	if got := Changes(all); len(got) != 3 {
		t.Errorf("a change of the user's in /etc: %v", got)
	}
}

func TestFilter(t *testing.T) {
	layer := func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, h := range []tar.Header{
			{Name: "dev/", Typeflag: tar.TypeDir}, {Name: "etc/", Typeflag: tar.TypeDir}, {Name: "etc/hosts", Typeflag: tar.TypeReg},
			{Name: "etc/hostname", Typeflag: tar.TypeReg, Size: 2}, {Name: "sys/", Typeflag: tar.TypeDir}, {Name: "sys/mine", Typeflag: tar.TypeReg},
		} {
			if err := tw.WriteHeader(&h); err != nil {
				return err
			}
			if _, err := tw.Write(make([]byte, h.Size)); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	var b bytes.Buffer
	if err := Filter(&b, layer); err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if diff := cmp.Diff([]string{"etc/", "etc/hostname", "sys/", "sys/mine"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := Filter(io.Discard, func(io.Writer) error { return io.ErrNoProgress }); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("an error of the layer: %v", err)
	}
}
