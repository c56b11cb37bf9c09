// Package coldjson is encoding/json for a process that handles one document
// and ends. Before its first value of a type, encoding/json builds encoders
// for every type that can be reached from it, which for a runtime-spec
// configuration takes ten times as long as the document itself. Here only what
// the document contains is looked at. What is not simple is left to
// encoding/json, so that results and errors are the same.
package coldjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Unmarshal is json.Unmarshal into a v that is empty.
func Unmarshal(data []byte, v any) error {
	if to := reflect.ValueOf(v); to.Kind() == reflect.Pointer && !to.IsNil() && json.Valid(data) {
		d := decoder{data: data, types: types{}}
		if d.value(to.Elem()) {
			return nil
		}
		to.Elem().SetZero()
	}
	return json.Unmarshal(data, v)
}

// Marshal is json.Marshal.
func Marshal(v any) ([]byte, error) {
	e := encoder{types: types{}}
	if e.value(reflect.ValueOf(v)) {
		return e.out, nil
	}
	return json.Marshal(v)
}

// types are the structs met so far.
type types map[reflect.Type][]field

// field is one member of a struct, or of one embedded in it.
type field struct {
	name      string
	index     []int
	omitEmpty bool
	omitZero  bool
}

// fields lists the members of a struct; ok is false if it has some whose rules
// are left to encoding/json.
func (ts types) fields(t reflect.Type) (list []field, ok bool) {
	if list, ok := ts[t]; ok {
		return list, list != nil
	}
	list, ok = collect(make([]field, 0, t.NumField()), t, nil)
	if !ok {
		list = nil
	}
	ts[t] = list
	return list, ok
}

func collect(list []field, t reflect.Type, at []int) ([]field, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" || !f.IsExported() && !f.Anonymous {
			continue
		}
		index := f.Index
		if len(at) > 0 {
			index = append(slices.Clip(at), i)
		}
		if f.Anonymous && name == "" {
			t, ok := f.Type, false
			if t.Kind() == reflect.Pointer && f.IsExported() {
				t = t.Elem()
			}
			if t.Kind() != reflect.Struct || custom(t) {
				return nil, false
			}
			if list, ok = collect(list, t, index); !ok {
				return nil, false
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !plain(name) || strings.Contains(options, "string") || slices.ContainsFunc(list, func(g field) bool { return g.name == name }) {
			return nil, false
		}
		list = append(list, field{name, index, strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")})
	}
	return list, true
}

// of finds the member in its struct; ok is false if it is in an embedded one
// that is not there, and absent ones are not to be made.
func (f *field) of(v reflect.Value, create bool) (m reflect.Value, ok bool) {
	for _, i := range f.index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !create {
					return v, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, true
}

// custom tells whether a type has methods that say how it is encoded.
func custom(t reflect.Type) bool {
	if t.Name() == "" || t.PkgPath() == "" {
		return false
	}
	p := reflect.PointerTo(t)
	return p.NumMethod() > 0 && (p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[json.Unmarshaler]()) ||
		p.Implements(reflect.TypeFor[encoding.TextMarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()))
}

// plain tells whether a string is written between quotes as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
