package rpc

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// TestAnswersFromWhereItWasAsked has a socket that is bound to all addresses answer from the one that a client has asked:
// the client's kernel drops what comes from another.
func TestAnswersFromWhereItWasAsked(t *testing.T) {
	asked := make(chan netip.AddrPort, 1)
	s, err := New(Config{Programs: []Program{{Number: program, Low: 1, High: 1, UDP: true, Serve: func(_ context.Context, c *Call, r *Reply) error {
		asked <- c.Server
		r.Uint32(77)
		return nil
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "127.0.0.9:0"} {
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go s.ServePacket(p)
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), uint16(p.LocalAddr().(*net.UDPAddr).Port))
		c, err := net.Dial("udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		var e xdr.Encoder
		sunrpc.WriteCall(&e, sunrpc.Header{XID: 5, Prog: program, Vers: 1}, "")
		if _, err := c.Write(e.B); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("a socket at %s: %v", addr, err)
		}
		d := xdr.NewDecoder(b[:n], nil)
		if xid, err := sunrpc.ReadReply(d); err != nil || xid != 5 || d.Uint32() != 77 {
			t.Errorf("%d %v", xid, err)
		}
		if got := <-asked; got != at {
			t.Errorf("asked at %v, not %v", got, at)
		}
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}
