package coldjson

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// encoder writes a document. Its methods return false for what encoding/json
// is to do.
type encoder struct {
	out   []byte
	types types
}

func (e *encoder) value(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Invalid:
		return false
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		if v.IsNil() {
			e.out = append(e.out, "null"...)
			return true
		}
	}
	if v.Kind() != reflect.Pointer && (v.Kind() == reflect.Interface || custom(v.Type())) {
		return e.delegate(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return e.value(v.Elem())
	case reflect.Struct:
		return e.object(v)
	case reflect.Map:
		return e.mapping(v)
	case reflect.Slice:
		return e.slice(v)
	case reflect.String:
		return e.text(v.String())
	case reflect.Bool:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	default:
		return e.delegate(v)
	}
	return true
}

// delegate gives one value to encoding/json, with the methods of its address
// where it has one, as there.
func (e *encoder) delegate(v reflect.Value) bool {
	if v.Kind() != reflect.Interface && v.CanAddr() {
		v = v.Addr()
	}
	b, err := json.Marshal(v.Interface())
	e.out = append(e.out, b...)
	return err == nil
}

func (e *encoder) object(v reflect.Value) bool {
	fields, ok := e.types.fields(v.Type())
	if !ok {
		return false
	}
	e.out = append(e.out, '{')
	first := true
	for i := range fields {
		f := &fields[i]
		m, ok := f.of(v, false)
		if !ok {
			continue
		}
		if f.omitZero && custom(m.Type()) {
			return false // it may say itself what is zero
		}
		if f.omitEmpty && empty(m) || f.omitZero && m.IsZero() {
			continue
		}
		if !first {
			e.out = append(e.out, ',')
		}
		first = false
		e.out = append(append(append(e.out, '"'), f.name...), `":`...)
		if !e.value(m) {
			return false
		}
	}
	e.out = append(e.out, '}')
	return true
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func (e *encoder) mapping(v reflect.Value) bool {
	if v.Type().Key().Kind() != reflect.String || custom(v.Type().Key()) {
		return e.delegate(v)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	e.out = append(e.out, '{')
	for i, k := range keys {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if !e.text(k.String()) {
			return false
		}
		e.out = append(e.out, ':')
		if !e.value(v.MapIndex(k)) {
			return false
		}
	}
	e.out = append(e.out, '}')
	return true
}

func (e *encoder) slice(v reflect.Value) bool {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return e.delegate(v)
	}
	e.out = append(e.out, '[')
	for i := range v.Len() {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if !e.value(v.Index(i)) {
			return false
		}
	}
	e.out = append(e.out, ']')
	return true
}

func (e *encoder) text(s string) bool {
	if !plain(s) {
		b, err := json.Marshal(s)
		e.out = append(e.out, b...)
		return err == nil
	}
	e.out = append(append(append(e.out, '"'), s...), '"')
	return true
}
