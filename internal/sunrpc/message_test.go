package sunrpc

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/xdr"
)

func call(change func(*Header)) []byte {
	h := Header{XID: 9, Prog: 100003, Vers: 3, Proc: 1, Cred: Cred{Flavor: AuthSys, UID: 1, GID: 2, Groups: []uint32{3, 4}}}
	if change != nil {
		change(&h)
	}
	var e xdr.Encoder
	WriteCall(&e, h, "host")
	e.Uint32(77)
	return e.B
}

func TestCall(t *testing.T) {
	for _, cred := range []Cred{{}, {Flavor: AuthSys, UID: 5}, {Flavor: AuthSys, GID: 6, Groups: make([]uint32, MaxGroups)}} {
		d := xdr.NewDecoder(call(func(h *Header) { h.Cred = cred }), nil)
		h, err := ReadCall(d)
		if want := (Header{XID: 9, Prog: 100003, Vers: 3, Proc: 1, Cred: cred}); err != nil || !cmp.Equal(h, want) {
			t.Error(err, cmp.Diff(h, want))
		}
		if d.Uint32() != 77 || d.Left() != 0 {
			t.Error("the arguments are not what is left")
		}
	}
}

func TestCallMalformed(t *testing.T) {
	patched := func(at int, v byte) []byte {
		b := call(nil)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":               {nil, ErrMessage},
		"a reply":             {patched(7, 1), ErrMessage},
		"RPC version 3":       {patched(11, 3), ErrVersion},
		"credentials, 64 KiB": {patched(29, 1), ErrMessage},
		"seventeen groups":    {call(func(h *Header) { h.Cred.Groups = make([]uint32, 17) }), AuthBadCred},
		"RPCSEC_GSS":          {patched(27, 6), AuthRejectedCred},
		"AUTH_SHORT":          {patched(27, 2), AuthRejectedCred},
		"a long machine name": {patched(38, 9), AuthBadCred},
	} {
		h, err := ReadCall(xdr.NewDecoder(c.b, nil))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if !errors.Is(c.want, ErrMessage) && h.XID != 9 {
			t.Errorf("%s: XID %d", name, h.XID)
		}
	}
	b := call(nil)
	for n := range len(b) - 4 {
		if _, err := ReadCall(xdr.NewDecoder(b[:n], nil)); err == nil {
			t.Errorf("%d bytes are a call", n)
		}
	}
}

func TestReply(t *testing.T) {
	for name, c := range map[string]struct {
		write func(*xdr.Encoder)
		want  error
	}{
		"success":      {func(e *xdr.Encoder) { WriteAccepted(e, 9, Success, 0, 0) }, nil},
		"no program":   {func(e *xdr.Encoder) { WriteAccepted(e, 9, ProgUnavail, 0, 0) }, ProgUnavail},
		"versions":     {func(e *xdr.Encoder) { WriteAccepted(e, 9, ProgMismatch, 3, 3) }, ProgMismatch},
		"no procedure": {func(e *xdr.Encoder) { WriteAccepted(e, 9, ProcUnavail, 0, 0) }, ProcUnavail},
		"garbage":      {func(e *xdr.Encoder) { WriteAccepted(e, 9, GarbageArgs, 0, 0) }, GarbageArgs},
		"denied":       {func(e *xdr.Encoder) { WriteDenied(e, 9, AuthBadCred) }, AuthBadCred},
		"RPC version":  {func(e *xdr.Encoder) { WriteDenied(e, 9, 0) }, ErrVersion},
	} {
		var e xdr.Encoder
		c.write(&e)
		if xid, err := ReadReply(xdr.NewDecoder(e.B, nil)); xid != 9 || !errors.Is(err, c.want) {
			t.Errorf("%s: %d %v", name, xid, err)
		}
	}
	// RFC 5531 9: the bytes of a mismatch.
	var e xdr.Encoder
	WriteAccepted(&e, 1, ProgMismatch, 2, 4)
	want := []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 4}
	if d := cmp.Diff(e.B, want); d != "" {
		t.Error(d)
	}
}

func FuzzCall(f *testing.F) {
	f.Add(call(nil))
	f.Add(call(func(h *Header) { h.Cred = Cred{} }))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := xdr.NewDecoder(b, nil)
		h, err := ReadCall(d)
		if len(h.Cred.Groups) > MaxGroups {
			t.Fatal(len(h.Cred.Groups), "groups")
		}
		if err != nil {
			return
		}
		var e xdr.Encoder
		WriteCall(&e, h, "")
		again, err := ReadCall(xdr.NewDecoder(e.B, nil))
		if err != nil || !cmp.Equal(h, again) {
			t.Fatal(err, cmp.Diff(h, again))
		}
	})
}

func FuzzReply(f *testing.F) {
	var e xdr.Encoder
	WriteAccepted(&e, 1, Success, 0, 0)
	f.Add(e.B)
	f.Fuzz(func(_ *testing.T, b []byte) { ReadReply(xdr.NewDecoder(b, nil)) })
}
