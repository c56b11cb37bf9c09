package coldjson

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// decoder reads a document that is known to be valid. Its methods return false
// for what encoding/json is to do.
type decoder struct {
	data  []byte
	at    int
	types types
}

// peek skips white space and returns the next byte.
func (d *decoder) peek() byte {
	for d.at < len(d.data) {
		switch c := d.data[d.at]; c {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return c
		}
	}
	return 0
}

// next skips the byte c if it comes next.
func (d *decoder) next(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) value(v reflect.Value) bool {
	if d.peek() == 'n' {
		d.at += len("null")
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			v.SetZero()
		}
		return true
	}
	if v.Kind() == reflect.Interface || custom(v.Type()) {
		return d.delegate(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem())
	case reflect.Struct:
		return d.object(v)
	case reflect.Map:
		return d.mapping(v)
	case reflect.Slice:
		return d.slice(v)
	case reflect.String:
		s, ok := d.text()
		if ok {
			v.SetString(s)
		}
		return ok
	case reflect.Bool:
		return d.boolean(v)
	}
	return d.number(v)
}

// delegate gives one value to encoding/json.
func (d *decoder) delegate(v reflect.Value) bool {
	from := d.at
	d.skip()
	return v.CanAddr() && json.Unmarshal(d.data[from:d.at], v.Addr().Interface()) == nil
}

func (d *decoder) object(v reflect.Value) bool {
	fields, ok := d.types.fields(v.Type())
	if !ok || !d.next('{') {
		return false
	}
	for !d.next('}') {
		name, ok := d.name()
		if !ok || !d.next(':') {
			return false
		}
		f, ok := find(fields, name)
		if !ok {
			return false
		}
		if f == nil {
			d.peek()
			d.skip()
		} else if m, ok := f.of(v, true); !ok || !d.value(m) {
			return false
		}
		d.next(',')
	}
	return true
}

// find takes a name in other case only if none matches as it is; ok is false if
// several do then. It returns nil if there is none.
func find(fields []field, name []byte) (found *field, ok bool) {
	for i := range fields {
		if fields[i].name == string(name) {
			return &fields[i], true
		}
	}
	for i := range fields {
		if !strings.EqualFold(fields[i].name, string(name)) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = &fields[i]
	}
	return found, true
}

func (d *decoder) mapping(v reflect.Value) bool {
	t := v.Type()
	if t.Key().Kind() != reflect.String || custom(t.Key()) {
		return d.delegate(v)
	}
	if !d.next('{') {
		return false
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	for !d.next('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return false
		}
		elem := reflect.New(t.Elem()).Elem()
		if !d.value(elem) {
			return false
		}
		v.SetMapIndex(reflect.ValueOf(name).Convert(t.Key()), elem)
		d.next(',')
	}
	return true
}

func (d *decoder) slice(v reflect.Value) bool {
	t := v.Type()
	if t.Elem().Kind() == reflect.Uint8 || !d.next('[') {
		return false
	}
	v.Set(reflect.MakeSlice(t, 0, 4))
	for n := 0; !d.next(']'); n++ {
		if n == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(n + 1)
		if !d.value(v.Index(n)) {
			return false
		}
		d.next(',')
	}
	return true
}

func (d *decoder) boolean(v reflect.Value) bool {
	word := d.word()
	v.SetBool(word == "true")
	return word == "true" || word == "false"
}

func (d *decoder) number(v reflect.Value) bool {
	word := d.word()
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(word, 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(word, 10, v.Type().Bits())
		v.SetUint(n)
		return err == nil
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(word, v.Type().Bits())
		v.SetFloat(n)
		return err == nil
	}
	return false
}

// word is a number, true or false.
func (d *decoder) word() string {
	d.peek()
	from := d.at
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\r', '\n', ',', ']', '}', ':', '[', '{', '"':
			return string(d.data[from:d.at])
		}
		d.at++
	}
	return string(d.data[from:])
}

// text reads a string.
func (d *decoder) text() (s string, ok bool) {
	b, ok := d.name()
	return string(b), ok
}

// name reads a string that is looked at only until the next.
func (d *decoder) name() (b []byte, ok bool) {
	if d.peek() != '"' {
		return nil, false
	}
	from := d.at
	d.skip()
	raw := d.data[from:d.at]
	if b = raw[1 : len(raw)-1]; plainInput(b) {
		return b, true
	}
	var s string
	ok = json.Unmarshal(raw, &s) == nil
	return []byte(s), ok
}

func plainInput(b []byte) bool {
	for _, c := range b {
		if c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// skip passes over one value, whatever it is.
func (d *decoder) skip() {
	switch d.data[d.at] {
	case '"':
		for d.at++; d.data[d.at] != '"'; d.at++ {
			if d.data[d.at] == '\\' {
				d.at++
			}
		}
		d.at++
	case '{', '[':
		depth := 0
		for {
			switch d.data[d.at] {
			case '"':
				d.skip()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if d.at++; depth == 0 {
				return
			}
		}
	default:
		d.word()
	}
}
