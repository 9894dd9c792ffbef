// Package xdr reads and writes External Data Representation (RFC 4506). Every length is checked against a bound that the
// caller gives, and against what there is, before anything is made of it; nothing is copied and nothing allocated.
package xdr

import (
	"encoding/binary"
	"errors"
)

// ErrSyntax is returned for data that ends too early, lengths above their bound, and booleans that are none.
var ErrSyntax = errors.New("xdr: malformed data")

// Decoder reads from memory. The first error stays: what is read after it is zero, so that callers check Err once.
type Decoder struct {
	b    []byte
	tail []byte // what follows b; read by Opaque as a whole only
	err  error
}

// NewDecoder reads b. A tail that follows b in another place of memory (the data of a WRITE) is for one Opaque that begins
// with it; nil if there is none.
func NewDecoder(b, tail []byte) *Decoder { return &Decoder{b: b, tail: tail} }

// Err is the first error.
func (d *Decoder) Err() error { return d.err }

// Fail makes err the error, if there is none yet.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
		d.b, d.tail = nil, nil
	}
}

// Left is how many bytes are not read yet.
func (d *Decoder) Left() int { return len(d.b) + len(d.tail) }

// Rest returns what is not read yet, without the tail.
func (d *Decoder) Rest() []byte { return d.b }

func (d *Decoder) take(n int) []byte {
	if n > len(d.b) {
		d.Fail(ErrSyntax)
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

// Uint32 reads an unsigned integer, or an enumeration.
func (d *Decoder) Uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// Uint64 reads an unsigned hyper.
func (d *Decoder) Uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Bool reads a boolean: 0 or 1.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.Fail(ErrSyntax)
	}
	return v == 1
}

// Fixed reads len(p) bytes into p. RFC 4506 pads them to a multiple of 4; this protocol family uses none that needs it.
func (d *Decoder) Fixed(p []byte) { copy(p, d.take(len(p))) }

// Opaque reads a counted byte string of at most limit bytes and its padding. It returns a part of the decoder's memory.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if d.err != nil {
		return nil
	}
	if uint64(n) > uint64(limit) {
		d.Fail(ErrSyntax)
		return nil
	}
	if len(d.b) == 0 && len(d.tail) != 0 {
		if int(n) > len(d.tail) || Pad(int(n)) > len(d.tail)-int(n) {
			d.Fail(ErrSyntax)
			return nil
		}
		p := d.tail[:n:n]
		d.tail = nil
		return p
	}
	p := d.take(int(n))
	d.take(Pad(int(n)))
	if d.err != nil {
		return nil
	}
	return p
}

// String is Opaque as a copy.
func (d *Decoder) String(limit int) string { return string(d.Opaque(limit)) }

// Pad is how many bytes follow a string of n bytes.
func Pad(n int) int { return -n & 3 }

// Encoder appends to memory. The zero Encoder is ready.
type Encoder struct{ B []byte }

// Len is how many bytes were written.
func (e *Encoder) Len() int { return len(e.B) }

func (e *Encoder) Uint32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }
func (e *Encoder) Uint64(v uint64) { e.B = binary.BigEndian.AppendUint64(e.B, v) }

// Bool writes 0 or 1.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint32(1)
	} else {
		e.Uint32(0)
	}
}

// Fixed writes bytes without a count; their number is a multiple of 4.
func (e *Encoder) Fixed(p []byte) { e.B = append(e.B, p...) }

var zeros [4]byte

// Opaque writes a counted byte string and its padding.
func (e *Encoder) Opaque(p []byte) {
	e.Uint32(uint32(len(p)))
	e.B = append(append(e.B, p...), zeros[:Pad(len(p))]...)
}

// String is Opaque of a string.
func (e *Encoder) String(s string) {
	e.Uint32(uint32(len(s)))
	e.B = append(append(e.B, s...), zeros[:Pad(len(s))]...)
}

// Skip leaves n bytes of zero and returns their offset, for Patch.
func (e *Encoder) Skip(n int) int {
	at := len(e.B)
	e.B = append(e.B, make([]byte, n)...)
	return at
}

// Patch writes v at an offset of Skip.
func (e *Encoder) Patch(at int, v uint32) { binary.BigEndian.PutUint32(e.B[at:], v) }

// Cut takes everything from an offset on away.
func (e *Encoder) Cut(at int) { e.B = e.B[:at] }
