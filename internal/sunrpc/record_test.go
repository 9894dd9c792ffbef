package sunrpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pmsapp/internal/block"
)

// wire makes a stream of one record out of fragments.
func wire(fragments ...[]byte) []byte {
	var b []byte
	for i, f := range fragments {
		mark := uint32(len(f))
		if i == len(fragments)-1 {
			mark |= lastFragment
		}
		b = append(binary.BigEndian.AppendUint32(b, mark), f...)
	}
	return b
}

func nowhere([]byte) int { return 0 }
func always(int) bool    { return true }

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func read(r *RecordReader, place func([]byte) int) (Record, error) {
	if _, err := r.Begin(); err != nil {
		return Record{}, err
	}
	return r.Rest(place, always)
}

func TestRecords(t *testing.T) {
	p := pattern(70000)
	for name, c := range map[string]struct{ fragments [][]byte }{
		"one":         {[][]byte{p[:100]}},
		"long":        {[][]byte{p}},
		"empty":       {[][]byte{{}}},
		"three":       {[][]byte{p[:10], p[10:5000], p[5000:]}},
		"empty first": {[][]byte{{}, p[:9]}},
		"empty last":  {[][]byte{p[:9], {}}},
	} {
		want := bytes.Join(c.fragments, nil)
		stream := append(wire(c.fragments...), wire([]byte("next"))...)
		for _, slow := range []bool{false, true} {
			var src io.Reader = bytes.NewReader(stream)
			if slow {
				src = iotest.OneByteReader(src)
			}
			r := NewRecordReader(src, len(p))
			rec, err := read(r, nowhere)
			if err != nil || !bytes.Equal(rec.Head, want) || rec.Data != nil {
				t.Fatalf("%s: %v, %d bytes", name, err, len(rec.Head))
			}
			rec.Free()
			if rec, err = read(r, nowhere); err != nil || string(rec.Head) != "next" {
				t.Fatalf("%s: what follows: %v %q", name, err, rec.Head)
			}
			if _, err = r.Begin(); err != io.EOF {
				t.Fatalf("%s: %v at the end", name, err)
			}
		}
	}
}

// TestPlaced has the data of a record put where direct I/O can use them.
func TestPlaced(t *testing.T) {
	p := pattern(5000)
	rec, err := read(NewRecordReader(bytes.NewReader(wire(p)), len(p)), func(b []byte) int {
		if len(b) != peekLen || !bytes.Equal(b, p[:peekLen]) {
			t.Error("not the begin of the record")
		}
		return 904
	})
	if err != nil || !bytes.Equal(rec.Head, p[:904]) || !bytes.Equal(rec.Data, p[904:]) || !block.Aligned(rec.Data) {
		t.Fatal(err, len(rec.Head), len(rec.Data))
	}
	d := rec.Decoder()
	if d.Left() != len(p) {
		t.Fatal(d.Left())
	}
}

func TestRecordBounds(t *testing.T) {
	small := make([][]byte, 200)
	for i := range small {
		small[i] = []byte{1}
	}
	for name, stream := range map[string][]byte{
		"too long":         wire(pattern(1001)),
		"4 GiB":            {0xff, 0xff, 0xff, 0xff},
		"long in two":      wire(pattern(600), pattern(600)),
		"many of one byte": wire(small...),
		"empty for ever":   make([]byte, 4*200),
	} {
		if _, err := read(NewRecordReader(bytes.NewReader(stream), 1000), nowhere); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := NewRecordReader(bytes.NewReader(wire(pattern(10), pattern(10))), 1000)
	if _, err := r.Begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rest(nowhere, func(n int) bool { return n != 10 }); !errors.Is(err, ErrRecord) {
		t.Error("memory that was refused is taken:", err)
	}
	whole := wire(pattern(10), pattern(3000))
	for n := 1; n < len(whole); n += 13 {
		if _, err := read(NewRecordReader(bytes.NewReader(whole[:n]), 5000), nowhere); err == nil {
			t.Fatalf("%d of %d bytes are a record", n, len(whole))
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(wire([]byte("one")), uint16(900))
	f.Add(wire([]byte("two"), []byte("fragments")), uint16(0))
	f.Add(wire(pattern(4000)), uint16(100))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1}, uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		r := NewRecordReader(bytes.NewReader(stream), 8192)
		total := 0
		for {
			rec, err := read(r, func([]byte) int { return int(at) })
			if err != nil {
				return
			}
			if total += MarkLen + len(rec.Head) + len(rec.Data); total > len(stream) {
				t.Fatal("more bytes than there were")
			}
			rec.Free()
		}
	})
}
