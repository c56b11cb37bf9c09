package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Types of messages and fields of their headers (D-Bus specification, "Message
// Protocol").
const (
	typeCall   = 1
	typeError  = 3
	typeSignal = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// message is a received one.
type message struct {
	typ       byte
	replyTo   uint32
	member    string
	errorName string
	body      *decoder
}

// Property of a unit.
type Property struct {
	Name string
	// Value is a bool, string, uint32, uint64, []byte, []string, []uint32,
	// []Pair or []Amount.
	Value any
}

// Pair is two strings, such as a device and how it may be used.
type Pair struct{ First, Second string }

// Amount is a number for a device.
type Amount struct {
	Path string
	N    uint64
}

// aux is the list of further units of a transient one; it is always empty.
type aux struct{}

func align(n, to int) int { return (n + to - 1) / to * to }

type encoder struct{ b []byte }

func (e *encoder) pad(to int) { e.b = append(e.b, make([]byte, align(len(e.b), to)-len(e.b))...) }

func (e *encoder) u32(n uint32) {
	e.pad(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, n)
}

func (e *encoder) text(s string) {
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array writes the length of what fill writes, whose elements are aligned.
func (e *encoder) array(to int, fill func()) {
	e.u32(0)
	at := len(e.b)
	e.pad(to)
	start := len(e.b)
	fill()
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-start))
}

// signatureOf a value.
func signatureOf(v any) string {
	switch v.(type) {
	case bool:
		return "b"
	case string:
		return "s"
	case uint32:
		return "u"
	case uint64:
		return "t"
	case []byte:
		return "ay"
	case []string:
		return "as"
	case []uint32:
		return "au"
	case []Pair:
		return "a(ss)"
	case []Amount:
		return "a(st)"
	case []Property:
		return "a(sv)"
	case aux:
		return "a(sa(sv))"
	}
	panic(fmt.Sprintf("systemd: no D-Bus type for %T", v))
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case bool:
		n := uint32(0)
		if v {
			n = 1
		}
		e.u32(n)
	case string:
		e.text(v)
	case uint32:
		e.u32(v)
	case uint64:
		e.pad(8)
		e.b = binary.LittleEndian.AppendUint64(e.b, v)
	case []byte:
		e.array(1, func() { e.b = append(e.b, v...) })
	case []string:
		e.array(4, func() {
			for _, s := range v {
				e.text(s)
			}
		})
	case []uint32:
		e.array(4, func() {
			for _, n := range v {
				e.u32(n)
			}
		})
	case aux:
		e.array(8, func() {})
	default:
		e.structs(v)
	}
}

func (e *encoder) structs(v any) {
	e.array(8, func() {
		switch v := v.(type) {
		case []Pair:
			for _, p := range v {
				e.pad(8)
				e.text(p.First)
				e.text(p.Second)
			}
		case []Amount:
			for _, a := range v {
				e.pad(8)
				e.text(a.Path)
				e.value(a.N)
			}
		case []Property:
			for _, p := range v {
				e.pad(8)
				e.text(p.Name)
				e.signature(signatureOf(p.Value))
				e.value(p.Value)
			}
		}
	})
}

// method is a call as it goes over the wire.
func method(serial uint32, destination, path, iface, member string, args []any) []byte {
	var body encoder
	signature := ""
	for _, a := range args {
		signature += signatureOf(a)
		body.value(a)
	}
	e := encoder{b: []byte{'l', typeCall, 0, 1}}
	e.u32(uint32(len(body.b)))
	e.u32(serial)
	e.array(8, func() {
		field := func(code byte, typ, v string) {
			if v == "" {
				return
			}
			e.pad(8)
			e.b = append(e.b, code)
			e.signature(typ)
			if typ == "g" {
				e.signature(v)
			} else {
				e.text(v)
			}
		}
		field(fieldPath, "o", path)
		field(fieldInterface, "s", iface)
		field(fieldMember, "s", member)
		field(fieldDestination, "s", destination)
		field(fieldSignature, "g", signature)
	})
	e.pad(8)
	return append(e.b, body.b...)
}

// decoder reads values of types that are known beforehand.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
}

var errShort = errors.New("a message of systemd is truncated")

func (d *decoder) number() (uint32, error) {
	d.at = align(d.at, 4)
	if d.at+4 > len(d.b) {
		return 0, errShort
	}
	d.at += 4
	return d.order.Uint32(d.b[d.at-4:]), nil
}

func (d *decoder) text() (string, error) {
	n, err := d.number()
	if err != nil || uint64(d.at)+uint64(n)+1 > uint64(len(d.b)) {
		return "", errShort
	}
	s := string(d.b[d.at : d.at+int(n)])
	d.at += int(n) + 1
	return s, nil
}

func (d *decoder) signature() (string, error) {
	if d.at >= len(d.b) {
		return "", errShort
	}
	n := int(d.b[d.at])
	if d.at+n+2 > len(d.b) {
		return "", errShort
	}
	s := string(d.b[d.at+1 : d.at+1+n])
	d.at += n + 2
	return s, nil
}

// header reads the fields that matter, up to end.
func (m *message) header(d *decoder, end int) error {
	for d.at < end {
		d.at = align(d.at, 8)
		if d.at >= len(d.b) {
			return errShort
		}
		code := d.b[d.at]
		d.at++
		typ, err := d.signature()
		if err != nil {
			return err
		}
		var s string
		var n uint32
		switch typ {
		case "s", "o":
			s, err = d.text()
		case "g":
			s, err = d.signature()
		case "u":
			n, err = d.number()
		default:
			err = fmt.Errorf("a header field of type %q", typ)
		}
		if err != nil {
			return err
		}
		switch code {
		case fieldMember:
			m.member = s
		case fieldErrorName:
			m.errorName = s
		case fieldReplySerial:
			m.replyTo = n
		}
	}
	return nil
}
