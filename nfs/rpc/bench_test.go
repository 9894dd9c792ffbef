package rpc

import (
	"context"
	"net"
	"testing"

	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// deep uses as much of its stack as a call of NFS does.
//
//go:noinline
func deep(n int) (sum int) {
	var b [512]byte
	if b[n] = byte(n); n > 0 {
		sum = deep(n - 1)
	}
	return sum + int(b[n])
}

// BenchmarkCalls has 32 short calls under way over one connection.
func BenchmarkCalls(b *testing.B) {
	s, err := New(Config{Programs: []Program{{Number: program, Low: 1, High: 1, Serve: func(_ context.Context, _ *Call, r *Reply) error {
		r.Uint32(uint32(deep(8)))
		return nil
	}}}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var all []byte
	for range 32 {
		all = append(all, record(1, echo, func(e *xdr.Encoder) { e.Uint32(0) })...)
	}
	in := sunrpc.NewRecordReader(c, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(all); err != nil {
			b.Fatal(err)
		}
		for range 32 {
			if _, err := in.Begin(); err != nil {
				b.Fatal(err)
			}
			rec, err := in.Rest(func([]byte) int { return 0 }, func(int) bool { return true })
			if err != nil {
				b.Fatal(err)
			}
			rec.Free()
		}
	}
}
