package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// sent is what a test wrote and expects to read.
type sent struct {
	h         BHS
	ahs, data []byte
}

func randomPDU(rnd *rand.Rand, maxData int) sent {
	var s sent
	for i := range s.h {
		s.h[i] = byte(rnd.Uint32())
	}
	s.ahs = randomBytes(rnd, rnd.IntN(4)*4*rnd.IntN(60))
	s.data = randomBytes(rnd, rnd.IntN(maxData+1)*rnd.IntN(2))
	return s
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func TestReaderReadsWhatWriterWrites(t *testing.T) {
	for _, digests := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprint(digests), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var all []sent
			var wire bytes.Buffer
			w := NewWriter(&wire)
			w.SetDigests(digests[0], digests[1])
			for i := range 300 {
				s := randomPDU(rnd, []int{40, 3000, 70000}[i%3])
				if err := w.Write(&s.h, s.ahs, s.data); err != nil {
					t.Fatal(err)
				}
				all = append(all, s)
				if i%7 == 0 {
					if err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Flush(); err != nil || w.Buffered() != 0 {
				t.Fatal(err, w.Buffered())
			}
			r := NewReader(&wire)
			r.SetDigests(digests[0], digests[1])
			r.SetMaxData(70000)
			for i, s := range all {
				h, err := r.Next()
				if err != nil {
					t.Fatal(i, err)
				}
				if *h != s.h || !bytes.Equal(r.AHS(), s.ahs) || h.DataLen() != len(s.data) {
					t.Fatalf("PDU %d: headers differ", i)
				}
				if i%11 == 5 {
					if err := r.Discard(); err != nil {
						t.Fatal(i, err)
					}
					continue
				}
				got := make([]byte, len(s.data))
				part := rnd.IntN(len(got) + 1)
				if err := errors.Join(r.ReadData(got[:part]), r.ReadData(got[part:])); err != nil {
					t.Fatal(i, err)
				}
				if !bytes.Equal(got, s.data) {
					t.Fatalf("PDU %d: data differ", i)
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Fatal("at the end:", err)
			}
		})
	}
}

func TestReaderRefuses(t *testing.T) {
	good := func(h, d bool) []byte {
		var b bytes.Buffer
		w := NewWriter(&b)
		w.SetDigests(h, d)
		var bhs BHS
		bhs.Init(OpNopOut, FlagFinal)
		w.Write(&bhs, nil, []byte("hello"))
		w.Flush()
		return b.Bytes()
	}
	read := func(b []byte, h, d bool, maxData int) error {
		r := NewReader(bytes.NewReader(b))
		r.SetDigests(h, d)
		r.SetMaxData(maxData)
		bhs, err := r.Next()
		if err != nil {
			return err
		}
		return r.ReadData(make([]byte, bhs.DataLen()))
	}
	b := good(true, true)
	if err := read(b, true, true, 5); err != nil {
		t.Fatal(err)
	}
	if err := read(b, true, true, 4); !errors.Is(err, ErrDataLength) {
		t.Error("too long:", err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 4
		err := read(bad, true, true, 1<<20)
		switch {
		case i < BHSLen+4 && !errors.Is(err, ErrHeaderDigest) && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("byte %d: %v", i, err)
		case i >= BHSLen+4 && !errors.Is(err, ErrDataDigest):
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for n := 1; n < len(b); n++ {
		if err := read(b[:n], true, true, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	r := NewReader(bytes.NewReader(good(false, false)))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != ErrUnread {
		t.Error("unread:", err)
	}
	if err := r.ReadData(make([]byte, 6)); !errors.Is(err, ErrDataLength) {
		t.Error("more than there is:", err)
	}
}

func TestCDBThroughAHS(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := 1; n <= MaxCDB; n++ {
		var h BHS
		cdb := randomBytes(rnd, n)
		ahs, err := SetCDB(&h, nil, cdb)
		if err != nil || len(ahs)%4 != 0 || (n <= 16) != (len(ahs) == 0) {
			t.Fatal(n, err, len(ahs))
		}
		got, bidi, err := CDB(nil, &h, append(ahs, 0, 5, 2, 0, 1, 2, 3, 4))
		if err != nil || bidi != 0x01020304 {
			t.Fatal(n, err, bidi)
		}
		if !bytes.Equal(got[:n], cdb) {
			t.Fatal(n, "differs")
		}
	}
	var h BHS
	if _, err := SetCDB(&h, nil, make([]byte, MaxCDB+1)); !errors.Is(err, ErrCDBLength) {
		t.Error(err)
	}
	for _, bad := range []string{"\x00\x00\x01\x00", "\x00\x02\x01\x00", "\xff\xff\x01\x00", "\x00\x04\x02\x00\x01\x02\x03\x00", "\x00\x01\x01\x00"} {
		if _, _, err := CDB(nil, &h, []byte(bad)); !errors.Is(err, ErrAHS) && bad != "\x00\x02\x01\x00" {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func TestSerialNumbers(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		less bool
	}{{0, 1, true}, {1, 0, false}, {5, 5, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}, {0xfffffff0, 0x10, true}, {0, 1 << 31, false}, {1 << 31, 0, false}} {
		if SNLess(c.a, c.b) != c.less {
			t.Errorf("%x < %x", c.a, c.b)
		}
	}
	if !SNInWindow(0, 0xfffffffe, 3) || SNInWindow(4, 0xfffffffe, 3) || SNInWindow(7, 7, 6) || !SNInWindow(7, 7, 7) {
		t.Error("window")
	}
}

// countConn counts writes and swallows them.
type countConn struct {
	net.Conn
	n int
}

func (c *countConn) Write(b []byte) (int, error) { c.n++; return len(b), nil }

func TestNoAllocation(t *testing.T) {
	w := NewWriter(&countConn{})
	w.SetDigests(true, true)
	data := make([]byte, 4096)
	var h BHS
	if n := testing.AllocsPerRun(200, func() {
		for range 20 {
			if err := w.Write(&h, nil, data); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
	}); n > 0 {
		t.Errorf("Writer: %v allocations", n)
	}
	var wire bytes.Buffer
	w = NewWriter(&wire)
	w.SetDigests(true, true)
	for range 500 {
		w.Write(&h, nil, data)
	}
	w.Flush()
	r := NewReader(&wire)
	r.SetDigests(true, true)
	if n := testing.AllocsPerRun(400, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if err := r.ReadData(data); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("Reader: %v allocations", n)
	}
}

// sessions are the recorded ones of package iscsitest.
func sessions(f *testing.F) (all [][]byte) {
	names, err := filepath.Glob("iscsitest/testdata/sessions/*.bin")
	if err != nil || len(names) == 0 {
		f.Fatal(err, len(names))
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	w := NewWriter(&b)
	var h BHS
	h.Init(OpSCSICommand, FlagFinal|FlagWrite)
	ahs, _ := SetCDB(&h, nil, make([]byte, 60))
	w.Write(&h, ahs, make([]byte, 70))
	h.Init(OpNopOut, FlagFinal)
	w.Write(&h, nil, nil)
	w.Flush()
	f.Add(b.Bytes(), false)
	f.Add([]byte{}, true)
	for _, s := range sessions(f) {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, digests bool) {
		r := NewReader(bytes.NewReader(b))
		r.SetDigests(digests, digests)
		buf := make([]byte, LoginMaxData)
		for {
			h, err := r.Next()
			if err != nil {
				return
			}
			if cdb, _, err := CDB(nil, h, r.AHS()); err == nil && len(cdb) > MaxCDB {
				t.Fatal("CDB of", len(cdb))
			}
			if err := r.ReadData(buf[:h.DataLen()]); err != nil && !errors.Is(err, ErrDataDigest) {
				return
			}
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range sessions(f) {
		h := BHS(s)
		f.Add(s[BHSLen:][:h.DataLen()]) // the first login request's
	}
	f.Add([]byte("InitiatorName=iqn.a\x00HeaderDigest=CRC32C,None\x00"))
	f.Add([]byte("a=\x00\x00b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b)
		if err != nil {
			return
		}
		again, err := ParseText(AppendText(nil, pairs...))
		if err != nil || len(again) != len(pairs) {
			t.Fatal(err, len(again), len(pairs))
		}
		for i := range again {
			if again[i] != pairs[i] {
				t.Fatal(again[i], pairs[i])
			}
		}
	})
}
