package progress

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const pull = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}
{"status":"Downloading","progressDetail":{"current":50,"total":100},"id":"aa"}
{"status":"Pull complete","progressDetail":{},"id":"aa"}
{"status":"Digest: sha256:1"}
`

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	if err := Show(strings.NewReader(pull), Options{Out: &out}); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/x\naa: Pulling fs layer\nbb: Pulling fs layer\naa: Pull complete\nDigest: sha256:1\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	if err := Show(strings.NewReader(pull), Options{Out: &out, Terminal: true, Width: 120}); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/x\naa: Pulling fs layer\nbb: Pulling fs layer\n" +
		"\x1b[2A\x1b[2K\raa: Downloading [=========================>                         ]      50B/100B\x1b[2B\r" +
		"\x1b[2A\x1b[2K\raa: Pull complete\x1b[2B\r" + "Digest: sha256:1\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestStreamAuxAndErrors(t *testing.T) {
	var out bytes.Buffer
	var aux string
	in := `{"stream":"Step 1/1 : FROM x\n"}{"aux":{"ID":"sha256:1"}}{"errorDetail":{"code":7,"message":"boom"},"error":"boom"}`
	err := Show(strings.NewReader(in), Options{Out: &out, Aux: func(raw json.RawMessage) { aux = string(raw) }})
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != 7 || failed.Message != "boom" {
		t.Errorf("got %v", err)
	}
	if out.String() != "Step 1/1 : FROM x\n" || aux != `{"ID":"sha256:1"}` {
		t.Errorf("got %q, aux %q", out.String(), aux)
	}
	if err := Show(strings.NewReader(`{"error":"old form"}`), Options{Out: &out}); err == nil || err.Error() != "old form" {
		t.Errorf("got %v", err)
	}
	if err := Show(strings.NewReader(`{"status":`), Options{Out: &out}); err == nil {
		t.Error("a cut stream is no error")
	}
}
