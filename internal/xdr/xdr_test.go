package xdr

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var e Encoder
	e.Uint32(7)
	e.Uint64(1 << 40)
	e.Bool(true)
	e.Bool(false)
	e.Fixed([]byte("12345678"))
	e.String("hello")
	at := e.Skip(4)
	e.Opaque([]byte{1, 2, 3, 4})
	e.Patch(at, 99)
	if e.Len()%4 != 0 {
		t.Fatal("not a multiple of 4:", e.Len())
	}
	d := NewDecoder(e.B, nil)
	var fixed [8]byte
	if v := d.Uint32(); v != 7 {
		t.Error(v)
	}
	if v := d.Uint64(); v != 1<<40 {
		t.Error(v)
	}
	if !d.Bool() || d.Bool() {
		t.Error("booleans")
	}
	if d.Fixed(fixed[:]); string(fixed[:]) != "12345678" {
		t.Error(fixed)
	}
	if s := d.String(5); s != "hello" {
		t.Error(s)
	}
	if v := d.Uint32(); v != 99 {
		t.Error(v)
	}
	if p := d.Opaque(4); !bytes.Equal(p, []byte{1, 2, 3, 4}) {
		t.Error(p)
	}
	if d.Err() != nil || d.Left() != 0 {
		t.Fatal(d.Err(), d.Left())
	}
}

func TestMalformed(t *testing.T) {
	for name, c := range map[string]struct {
		b, tail []byte
		read    func(*Decoder)
	}{
		"short integer":         {[]byte{0, 0, 1}, nil, func(d *Decoder) { d.Uint32() }},
		"short hyper":           {make([]byte, 7), nil, func(d *Decoder) { d.Uint64() }},
		"boolean of 2":          {[]byte{0, 0, 0, 2}, nil, func(d *Decoder) { d.Bool() }},
		"length above bound":    {[]byte{0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0}, nil, func(d *Decoder) { d.Opaque(4) }},
		"length above data":     {[]byte{0, 0, 0, 5, 1, 2, 3, 4}, nil, func(d *Decoder) { d.Opaque(8) }},
		"length of 4 GiB":       {[]byte{255, 255, 255, 255, 1, 2, 3, 4}, nil, func(d *Decoder) { d.Opaque(1 << 20) }},
		"no padding":            {[]byte{0, 0, 0, 1, 1}, nil, func(d *Decoder) { d.Opaque(8) }},
		"tail without padding":  {[]byte{0, 0, 0, 1}, []byte{1}, func(d *Decoder) { d.Opaque(8) }},
		"length above the tail": {[]byte{0, 0, 0, 9}, []byte{1, 2, 3, 4}, func(d *Decoder) { d.Opaque(9) }},
		"fixed":                 {[]byte{1, 2, 3}, nil, func(d *Decoder) { d.Fixed(make([]byte, 4)) }},
	} {
		d := NewDecoder(c.b, c.tail)
		c.read(d)
		if !errors.Is(d.Err(), ErrSyntax) {
			t.Errorf("%s: %v", name, d.Err())
		}
		if d.Uint32() != 0 || d.Opaque(100) != nil || d.Left() != 0 {
			t.Errorf("%s: something is read after an error", name)
		}
	}
}

func TestTail(t *testing.T) {
	d := NewDecoder([]byte{0, 0, 0, 9, 0, 0, 0, 3}, []byte{1, 2, 3, 0})
	if v, p := d.Uint32(), d.Opaque(3); v != 9 || !bytes.Equal(p, []byte{1, 2, 3}) || d.Err() != nil || d.Left() != 0 {
		t.Fatal(v, p, d.Err(), d.Left())
	}
}
