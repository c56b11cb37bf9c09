package jsonfile

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// plainPrefix returns how many bytes at the start of p stand for themselves in a
// JSON string: ASCII without control characters, quote, backslash, <, > and &. It looks
// at eight at a time; each term of mask sets the top bit of the bytes it finds,
// exactly up to the first.
func plainPrefix(p []byte) int {
	const (
		ones = 0x0101010101010101
		tops = 0x8080808080808080
	)
	zero := func(x uint64) uint64 { return (x - ones) &^ x & tops } // bytes that are 0
	i := 0
	for ; i+8 <= len(p); i += 8 {
		x := binary.LittleEndian.Uint64(p[i:])
		mask := x&tops | (x-ones*0x20)&^x&tops |
			zero(x^ones*'\\') |
			zero((x|ones*0x02)^ones*'>') | // and <
			zero((x|ones*0x04)^ones*'&') // and the quote
		if mask != 0 {
			return i + bits.TrailingZeros64(mask)/8
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			break
		}
	}
	return i
}

// appendEscaped appends p as the inside of a JSON string. Bytes that are not
// UTF-8 become U+FFFD, as with Docker; <, > and & are escaped as it does.
func appendEscaped(dst, p []byte) []byte {
	for {
		n := plainPrefix(p)
		dst = append(dst, p[:n]...)
		if p = p[n:]; len(p) == 0 {
			return dst
		}
		if p[0] < utf8.RuneSelf {
			dst = appendControl(dst, p[0])
			p = p[1:]
			continue
		}
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&0xf])
		default:
			dst = append(dst, p[:n]...)
		}
		p = p[n:]
	}
}

// appendControl appends an ASCII character that must be escaped.
func appendControl(dst []byte, b byte) []byte {
	switch b {
	case '\\', '"':
		return append(dst, '\\', b)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	default:
		return append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&0xf])
	}
}
