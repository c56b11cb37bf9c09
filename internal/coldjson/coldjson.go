// Package coldjson is encoding/json for a process that handles one document
// and ends. Before its first value of a type, encoding/json builds encoders
// for every type that can be reached from it, which for a runtime-spec
// configuration takes ten times as long as the document itself. Here only what
// the document contains is looked at. What is not simple is left to
// encoding/json, so that results and errors are the same.
package coldjson

import (
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
		index := append(slices.Clip(at), i)
		if f.Anonymous && name == "" {
			var ok bool
			if f.Type.Kind() != reflect.Struct {
				return nil, false
			}
			if list, ok = collect(list, f.Type, index); !ok {
				return nil, false
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !plain(name) || strings.Contains(options, "string") || slices.ContainsFunc(list, func(g field) bool { return strings.EqualFold(g.name, name) }) {
			return nil, false
		}
		list = append(list, field{name, index, strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")})
	}
	return list, true
}

// custom tells whether a type may have methods that say how it is encoded.
func custom(t reflect.Type) bool {
	return t.Name() != "" && t.PkgPath() != "" && reflect.PointerTo(t).NumMethod() > 0
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
