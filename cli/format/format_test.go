package format

import (
	"bytes"
	"encoding/json"
	"testing"
)

type row struct {
	ID, Name string
	labels   map[string]string
}

func (r *row) Label(k string) string { return r.labels[k] }

func TestRows(t *testing.T) {
	rows := []*row{{ID: "1", Name: "one", labels: map[string]string{"a": "x"}}, {ID: "22", Name: "two<>"}}
	header := &row{ID: "ID COLUMN", Name: "NAME"}
	for tmpl, want := range map[string]string{
		"{{.ID}}":                               "1\n22\n",
		`{{.ID}}\t{{.Name}}`:                    "1\tone\n22\ttwo<>\n",
		`{{.ID}}:{{.Label "a"}}`:                "1:x\n22:\n",
		"table {{.ID}}\t{{.Name}}":              "ID COLUMN   NAME\n1           one\n22          two<>\n",
		`table {{.ID}}\t{{upper .Name}}`:        "ID COLUMN   NAME\n1           ONE\n22          TWO<>\n",
		"{{json .}}":                            "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"22\",\"Name\":\"two<>\"}\n",
		`{{json .Name}} {{title .Name}}`:        "\"one\" One\n\"two<>\" Two<>\n",
		`{{join (split .Name "n") "-"}}`:        "o-e\ntwo<>\n",
		`{{truncate .Name 2}}|{{pad .ID 1 1}}|`: "on| 1 |\ntw| 22 |\n",
		`{{println .ID}}`:                       "1\n\n22\n\n",
	} {
		var out bytes.Buffer
		if err := Rows(&out, tmpl, header, rows); err != nil || out.String() != want {
			t.Errorf("%q: got %q %v, want %q", tmpl, out.String(), err, want)
		}
	}
	for _, bad := range []string{"{{", "{{.Foo}}", "{{nosuch .ID}}"} {
		if err := Rows(&bytes.Buffer{}, bad, header, rows); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct{ given, configured, want string }{
		{"", "", "table def"}, {"table", "", "table def"}, {"json", "", "{{json .}}"}, {"", "{{.X}}", "{{.X}}"},
		{"table", "{{.X}}", "table def"}, {"{{.Y}}", "{{.X}}", "{{.Y}}"},
	} {
		if got := Resolve(c.given, c.configured, "def"); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestInspect(t *testing.T) {
	type typed struct {
		ID     string `json:"Id"`
		Health *struct{ Status string }
	}
	o := Object{
		Raw:   json.RawMessage(`{"Id":"x","Z":{"b":1,"a":[{"d":2,"c":3}]},"N":12345678901234567,"F":1.5}`),
		Typed: func() any { return &typed{} },
	}
	for tmpl, want := range map[string]string{
		"{{.Id}}":                           "x\n",
		"{{.ID}}":                           "x\n",
		"{{.N}} {{.F}}":                     "12345678901234567 1.5\n",
		"{{json .Z}}":                       "{\"b\":1,\"a\":[{\"d\":2,\"c\":3}]}\n",
		"{{json .Z.a}}":                     "[{\"d\":2,\"c\":3}]\n",
		"{{index .Z.a 0}}":                  "map[c:3 d:2]\n",
		"{{with .Health}}y{{else}}n{{end}}": "n\n",
		"json":                              `[{"Id":"x","Z":{"b":1,"a":[{"d":2,"c":3}]},"N":12345678901234567,"F":1.5}]` + "\n",
	} {
		var out bytes.Buffer
		if err := Inspect(&out, tmpl, []Object{o}); err != nil || out.String() != want {
			t.Errorf("%q: got %q %v, want %q", tmpl, out.String(), err, want)
		}
	}
	var out bytes.Buffer
	if err := Inspect(&out, "{{.Nosuch}}", []Object{o}); err == nil {
		t.Error("an unknown key is accepted")
	}
	out.Reset()
	if err := Inspect(&out, "", nil); err != nil || out.String() != "[]\n" {
		t.Errorf("got %q %v", out.String(), err)
	}
}
