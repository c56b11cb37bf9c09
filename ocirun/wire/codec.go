package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// The codec writes the fields of a structure one after the other, integers as
// varints, without names: both ends are always the same binary. It replaces
// encoding/json because decoding a specification in a process that lives for
// two milliseconds would take one of them.

var errShort = errors.New("wire: message is truncated")

func encode(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...)
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...)
		}
		for i := range v.Len() {
			b = encode(b, v.Index(i))
		}
		return b
	case reflect.Array:
		for i := range v.Len() {
			b = encode(b, v.Index(i))
		}
		return b
	case reflect.Struct:
		for i := range v.NumField() {
			b = encode(b, v.Field(i))
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return encode(append(b, 1), v.Elem())
	}
	panic("wire: cannot encode " + v.Type().String())
}

type decoder struct{ b []byte }

func (d *decoder) uvarint() (uint64, error) {
	n, w := binary.Uvarint(d.b)
	if w <= 0 {
		return 0, errShort
	}
	d.b = d.b[w:]
	return n, nil
}

// length reads a count of elements, each of which takes at least one byte.
func (d *decoder) length() (int, error) {
	n, err := d.uvarint()
	if err != nil || n > uint64(len(d.b)) {
		return 0, errShort
	}
	return int(n), nil
}

func (d *decoder) decode(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		n, err := d.uvarint()
		v.SetBool(n != 0)
		return err
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, w := binary.Varint(d.b)
		if w <= 0 {
			return errShort
		}
		d.b = d.b[w:]
		v.SetInt(n)
		return nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := d.uvarint()
		v.SetUint(n)
		return err
	case reflect.String:
		n, err := d.length()
		if err != nil {
			return err
		}
		v.SetString(string(d.b[:n]))
		d.b = d.b[n:]
		return nil
	case reflect.Slice:
		return d.slice(v)
	case reflect.Array:
		for i := range v.Len() {
			if err := d.decode(v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Struct:
		for i := range v.NumField() {
			if err := d.decode(v.Field(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Pointer:
		n, err := d.uvarint()
		if err != nil || n == 0 {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.decode(v.Elem())
	}
	return fmt.Errorf("wire: cannot decode %s", v.Type())
}

func (d *decoder) slice(v reflect.Value) error {
	n, err := d.length()
	if err != nil || n == 0 {
		return err
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		v.SetBytes(append([]byte(nil), d.b[:n]...))
		d.b = d.b[n:]
		return nil
	}
	s := reflect.MakeSlice(v.Type(), n, n)
	for i := range n {
		if err := d.decode(s.Index(i)); err != nil {
			return err
		}
	}
	v.Set(s)
	return nil
}
