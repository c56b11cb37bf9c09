package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"text/template"
)

// Object is a JSON object of the API for templates: {{.Name}} looks a key up,
// numbers are integers where they can be, and {{json .}} prints the daemon's
// own order. Typed, when not nil, makes the value of the API's Go type, which
// is tried when a template names a field by its Go name or one that the
// daemon left out.
type Object struct {
	Raw   json.RawMessage
	Typed func() any
	// Legacy, when not nil, adds keys that older daemons sent; templates see
	// them, {{json}} and the plain output do not.
	Legacy func(map[string]any)
}

// Inspect prints objects: as a JSON array without a template, on one line with
// "json", else each by tmpl.
func Inspect(w io.Writer, tmpl string, objects []Object) error {
	if tmpl == "" || tmpl == "json" {
		return array(w, objects, tmpl == "")
	}
	t, err := Parse(unescape(tmpl))
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	for _, o := range objects {
		if err := o.execute(&buf, t); err != nil {
			_, _ = buf.WriteTo(w)
			return fmt.Errorf("template parsing error: %w", err)
		}
		buf.WriteByte('\n')
	}
	_, err = buf.WriteTo(w)
	return err
}

// array prints objects as one JSON array, indented or on one line.
func array(w io.Writer, objects []Object, indent bool) error {
	var all, out bytes.Buffer
	all.WriteByte('[')
	for i, o := range objects {
		if i > 0 {
			all.WriteByte(',')
		}
		all.Write(o.Raw)
	}
	all.WriteByte(']')
	form := json.Compact
	if indent {
		form = func(dst *bytes.Buffer, src []byte) error { return json.Indent(dst, src, "", "    ") }
	}
	if err := form(&out, all.Bytes()); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

// execute tries the JSON keys, then the Go type; the first error is reported.
func (o Object) execute(w *bytes.Buffer, t *template.Template) error {
	d := decoder{texts: map[uintptr]json.RawMessage{}}
	v, err := d.decode(o.Raw)
	if err != nil {
		return err
	}
	if m, ok := v.(map[string]any); ok && o.Legacy != nil {
		o.Legacy(m)
	}
	mark := w.Len()
	strict, err := t.Clone()
	if err != nil {
		return err
	}
	strict.Option("missingkey=error").Funcs(template.FuncMap{"json": d.json})
	first := strict.Execute(w, v)
	if first == nil {
		return nil
	}
	w.Truncate(mark)
	if o.Typed != nil {
		typed := o.Typed()
		if err := json.Unmarshal(o.Raw, typed); err == nil {
			if t.Execute(w, typed) == nil {
				return nil
			}
			w.Truncate(mark)
		}
	}
	return first
}

// decoder decodes JSON into maps and slices and remembers the text of each, so
// that {{json}} prints the daemon's own order.
type decoder struct {
	texts map[uintptr]json.RawMessage // by address of map or first element
}

func (d decoder) json(v any) (string, error) {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Map, reflect.Slice:
		if raw, ok := d.texts[r.Pointer()]; ok {
			var buf bytes.Buffer
			if err := json.Compact(&buf, raw); err == nil {
				return buf.String(), nil
			}
		}
	}
	return toJSON(v)
}

// decode is json.Unmarshal into any, but numbers are integers where they can.
func (d decoder) decode(raw json.RawMessage) (any, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, nil
	}
	switch raw[0] {
	case '{':
		return d.object(raw)
	case '[':
		return d.array(raw)
	case '"', 't', 'f', 'n':
		var v any
		err := json.Unmarshal(raw, &v)
		return v, err
	}
	return number(string(raw))
}

func (d decoder) object(raw json.RawMessage) (any, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		var err error
		if out[k], err = d.decode(v); err != nil {
			return nil, err
		}
	}
	d.texts[reflect.ValueOf(out).Pointer()] = raw
	return out, nil
}

func (d decoder) array(raw json.RawMessage) (any, error) {
	var l []json.RawMessage
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, err
	}
	out := make([]any, len(l))
	for i := range l {
		var err error
		if out[i], err = d.decode(l[i]); err != nil {
			return nil, err
		}
	}
	if len(out) > 0 {
		d.texts[reflect.ValueOf(out).Pointer()] = raw
	}
	return out, nil
}

func number(s string) (any, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n, nil
	}
	return strconv.ParseFloat(s, 64)
}
