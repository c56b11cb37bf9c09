package main

import (
	"bytes"
	"testing"
)

func TestPackIsReproducible(t *testing.T) {
	one, err := pack([]byte("program"), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	two, err := pack([]byte("program"), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("the same program gave two different archives")
	}
	other, err := pack([]byte("program"), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one, other) {
		t.Error("the architecture is not part of the archive")
	}
}
