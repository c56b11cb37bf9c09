package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Batch collects messages. The zero value is empty and ready; a batch is used once.
type Batch struct {
	buf []byte
	at  []int    // where each message begins
	ops []string // what each message does, for errors
	get bool     // the last message is a question, which is answered anyway
}

// seal finishes the headers and returns the first sequence number.
func (b *Batch) seal() uint32 {
	n := uint32(len(b.at))
	first := seq.Add(n) - n + 1
	for i, at := range b.at {
		end := len(b.buf)
		if i+1 < len(b.at) {
			end = b.at[i+1]
		}
		binary.NativeEndian.PutUint32(b.buf[at:], uint32(end-at))
		binary.NativeEndian.PutUint32(b.buf[at+8:], first+uint32(i))
	}
	// One acknowledgement is enough: failures are always answered.
	if !b.get {
		h := b.buf[b.at[n-1]+6:]
		binary.NativeEndian.PutUint16(h, binary.NativeEndian.Uint16(h)|unix.NLM_F_ACK)
	}
	return first
}

// begin starts a message.
func (b *Batch) begin(op string, typ uint16, flags int) {
	b.at = append(b.at, len(b.buf))
	b.ops = append(b.ops, op)
	switch typ {
	case unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE:
		b.get = true
	default:
		b.get = false
	}
	var h [unix.SizeofNlMsghdr]byte
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], uint16(flags|unix.NLM_F_REQUEST))
	b.buf = append(b.buf, h[:]...)
}

func (b *Batch) raw(p ...byte) { b.buf = append(b.buf, p...) }

func (b *Batch) u32(v uint32) { b.buf = binary.NativeEndian.AppendUint32(b.buf, v) }

// attr appends one attribute, padded.
func (b *Batch) attr(typ uint16, val []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(4+len(val)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = append(b.buf, val...)
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *Batch) attr32(typ uint16, v uint32) {
	b.attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

func (b *Batch) attrString(typ uint16, s string) { b.attr(typ, append([]byte(s), 0)) }

// nest appends an attribute that holds what fill appends.
func (b *Batch) nest(typ uint16, fill func()) {
	at := len(b.buf)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	fill()
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

// ifinfo appends a struct ifinfomsg.
func (b *Batch) ifinfo(family byte, index int, flags, change uint32) {
	b.raw(family, 0, 0, 0)
	b.u32(uint32(index))
	b.u32(flags)
	b.u32(change)
}
