package scsi_test

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"testing"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

// inMemory is a listener and a provider: sessions with a rig's target over connections in memory.
type inMemory struct {
	target *scsi.Target
	conns  chan net.Conn
	ends   chan struct{}
}

func (m *inMemory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.ends:
		return nil, net.ErrClosed
	}
}
func (m *inMemory) Close() error   { return nil }
func (m *inMemory) Addr() net.Addr { return &net.TCPAddr{} }

func (m *inMemory) Credentials(target.Login) (iscsi.Auth, error) { return iscsi.Auth{}, nil }
func (m *inMemory) Open(l target.Login) (target.Opened, error) {
	return target.Opened{Nexus: m.target.Nexus(l)}, nil
}
func (m *inMemory) Discover(target.Login) []target.Discovered { return nil }

// opSize is what FuzzSession takes for one PDU: two bytes that choose a recorded one, its tag, which byte of the header is wrong, if
// one is, and what it is changed by.
const opSize = 5

// FuzzSession plays PDUs of recorded sessions, in any order, numbered as they should be but for one byte of each, to the device server
// behind a whole session. Afterwards the session is gone, and the unit answers another nexus.
func FuzzSession(f *testing.F) {
	var pdus []iscsitest.PDU
	for _, s := range iscsitest.Sessions() {
		var ops []byte
		for _, p := range iscsitest.PDUs(s) {
			if p.Opcode() == iscsi.OpLoginReq {
				continue
			}
			ops = append(ops, byte(len(pdus)>>8), byte(len(pdus)), byte(len(ops)/opSize), 255, 0)
			pdus = append(pdus, p)
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRigOf(t, 128<<10)
		m := &inMemory{r.target, make(chan net.Conn), make(chan struct{})}
		s, err := target.New(target.Config{Provider: m, Limits: target.Limits{MaxData: 1 << 16, Memory: 1 << 20, Queue: 16}})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { s.Serve(m); close(served) }()
		ours, theirs := net.Pipe()
		m.conns <- theirs
		w := begin(t, ours)
		drained := make(chan struct{})
		go func() { io.Copy(io.Discard, ours); close(drained) }()
		sn := uint32(1)
		for ; len(ops) >= opSize && len(ops) < 256*opSize; ops = ops[opSize:] {
			p := pdus[(int(ops[0])<<8|int(ops[1]))%len(pdus)]
			h := p.BHS
			if op := h.Opcode(); op == iscsi.OpSCSICommand || op == iscsi.OpNopOut || op == iscsi.OpTaskReq || op == iscsi.OpTextReq || op == iscsi.OpLogoutReq {
				h.SetCmdSN(sn)
				if !h.Immediate() {
					sn++
				}
			}
			h.SetITT(uint32(ops[2]))
			if at := int(ops[3]); at < iscsi.BHSLen {
				h[at] ^= ops[4]
			}
			if w.Write(&h, nil, p.Data) != nil || w.Flush() != nil {
				break
			}
		}
		ours.Close()
		<-drained
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		close(m.ends)
		s.Shutdown(ctx)
		<-served
		if n := len(s.Sessions()); n > 0 {
			t.Errorf("%d sessions are left", n)
		}
		for range 8 { // unit attentions of resets, and a reservation that the session's end releases
			if a := r.do(cdb(0x28, 0, 0, 0, 0, 0, 0, 0, 1), nil, 512); a.Status == 0 || a.Status == 0x18 {
				return
			}
		}
		t.Error("the unit answers nobody")
	})
}

// begin logs in.
func begin(t *testing.T, c net.Conn) *iscsi.Writer {
	l, err := iscsi.NewInitiatorLogin(iscsi.InitiatorLoginConfig{Initiator: "iqn.x", Target: "iqn.y", ISID: iscsi.ISID{0x80, 1},
		Wish: iscsi.DefaultWish(), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	rd, w := iscsi.NewReader(c), iscsi.NewWriter(c)
	pdu := l.First()
	for done := false; !done; {
		pdu.BHS.SetCmdSN(1)
		w.Write(&pdu.BHS, nil, pdu.Data)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		h, err := rd.Next()
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, rd.Pending())
		if err := rd.ReadData(data); err != nil {
			t.Fatal(err)
		}
		if pdu, done, err = l.Response(h, data); err != nil {
			t.Fatal(err)
		}
	}
	return w
}
