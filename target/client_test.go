package target_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
)

const (
	testTarget    = "iqn.2026-11.app.pmsapp:test"
	testInitiator = "iqn.2026-11.app.pmsapp:initiator"
	patience      = 10 * time.Second
)

// client is a raw initiator: it sends what a test says, right or wrong.
type client struct {
	t      testing.TB
	conn   net.Conn
	r      *iscsi.Reader
	w      *iscsi.Writer
	params iscsi.Params
	tsih   uint16
	keys   []iscsi.Pair

	cmdSN, statSN uint32
	itt           uint32
	expCmd, max   uint32
}

func dial(t testing.TB, addr net.Addr) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{t: t, conn: c, r: iscsi.NewReader(c), w: iscsi.NewWriter(c), cmdSN: 100}
}

func loginConfig(options ...func(*iscsi.InitiatorLoginConfig)) iscsi.InitiatorLoginConfig {
	cfg := iscsi.InitiatorLoginConfig{Initiator: testInitiator, Target: testTarget, ISID: iscsi.ISID{0x80, 1},
		Wish: iscsi.DefaultWish(), Rand: rand.Reader}
	for _, o := range options {
		o(&cfg)
	}
	return cfg
}

// tryLogin logs in, under a TSIH.
func (c *client) tryLogin(cfg iscsi.InitiatorLoginConfig, tsih uint16) error {
	l, err := iscsi.NewInitiatorLogin(cfg)
	if err != nil {
		return err
	}
	pdu := l.First()
	for {
		pdu.BHS.SetCmdSN(c.cmdSN)
		pdu.BHS.SetExpStatSN(c.statSN)
		if tsih != 0 {
			pdu.BHS.SetTSIH(tsih)
		}
		if err := c.w.Write(&pdu.BHS, nil, pdu.Data); err != nil {
			return err
		}
		if err := c.w.Flush(); err != nil {
			return err
		}
		h, err := c.r.Next()
		if err != nil {
			return err
		}
		data := make([]byte, c.r.Pending())
		if err := c.r.ReadData(data); err != nil {
			return err
		}
		c.statSN, c.expCmd, c.max = h.StatSN()+1, h.ExpCmdSN(), h.MaxCmdSN()
		var done bool
		if pdu, done, err = l.Response(h, data); err != nil {
			return err
		} else if done {
			break
		}
	}
	c.params, c.tsih, c.keys = l.Params(), l.TSIH(), l.Keys()
	c.r.SetMaxData(c.params.MaxRecv)
	c.r.SetDigests(c.params.HeaderDigest, c.params.DataDigest)
	c.w.SetDigests(c.params.HeaderDigest, c.params.DataDigest)
	return nil
}

func login(t testing.TB, addr net.Addr, options ...func(*iscsi.InitiatorLoginConfig)) *client {
	t.Helper()
	c := dial(t, addr)
	if err := c.tryLogin(loginConfig(options...), 0); err != nil {
		t.Fatal(err)
	}
	return c
}

func isid(n byte) func(*iscsi.InitiatorLoginConfig) {
	return func(c *iscsi.InitiatorLoginConfig) { c.ISID[5] = n }
}

// status is the status of a refused login.
func status(err error) iscsi.LoginStatus {
	var e *iscsi.LoginError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// send numbers and sends a PDU.
func (c *client) send(h *iscsi.BHS, data []byte) {
	c.t.Helper()
	if h.ITT() == 0 {
		c.itt++
		h.SetITT(c.itt)
	}
	if op := h.Opcode(); op != iscsi.OpDataOut && op != iscsi.OpSNACK {
		if h.CmdSN() == 0 {
			h.SetCmdSN(c.cmdSN)
			if !h.Immediate() {
				c.cmdSN++
			}
		}
	}
	h.SetExpStatSN(c.statSN)
	if err := c.w.Write(h, nil, data); err != nil {
		c.t.Fatal(err)
	}
	if err := c.w.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

type answer struct {
	iscsi.BHS
	data []byte
}

// recv returns the next PDU; it checks that every StatSN is the next one.
func (c *client) recv() (a answer, err error) {
	h, err := c.r.Next()
	if err != nil {
		return a, err
	}
	a.BHS = *h
	a.data = make([]byte, c.r.Pending())
	if err := c.r.ReadData(a.data); err != nil {
		return a, err
	}
	switch op := a.Opcode(); {
	case op == iscsi.OpDataIn && !a.Has(iscsi.FlagStatus):
	case op == iscsi.OpR2T, op == iscsi.OpNopIn && a.ITT() == iscsi.NoTag:
		if a.StatSN() != c.statSN {
			c.t.Errorf("%s with StatSN %d, want %d", op, a.StatSN(), c.statSN)
		}
	default:
		if a.StatSN() != c.statSN {
			c.t.Errorf("%s with StatSN %d, want %d", op, a.StatSN(), c.statSN)
		}
		c.statSN++
	}
	c.expCmd, c.max = a.ExpCmdSN(), a.MaxCmdSN()
	return a, nil
}

// expect is recv for a PDU that must come and have an opcode.
func (c *client) expect(op iscsi.Opcode) answer {
	c.t.Helper()
	a, err := c.recv()
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", op, err)
	}
	if a.Opcode() != op {
		c.t.Fatalf("got %s, want %s", a.Opcode(), op)
	}
	return a
}

// closed expects the connection to be closed by the target.
func (c *client) closed() {
	c.t.Helper()
	for {
		if _, err := c.recv(); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.t.Error("the connection is still open")
			}
			return
		}
	}
}

// ping does a round trip: everything sent before it was received.
func (c *client) ping() {
	c.t.Helper()
	var h iscsi.BHS
	h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
	h.SetImmediate()
	h.SetTTT(iscsi.NoTag)
	c.send(&h, []byte("ping"))
	a := c.expect(iscsi.OpNopIn)
	if string(a.data) != "ping" || a.ITT() != h.ITT() {
		c.t.Errorf("ping was answered %x %q", a.ITT(), a.data)
	}
}

// command makes a SCSI Command with a 16-byte CDB of the fake nexus's: an opcode and a length.
func command(op byte, flags byte, length, edtl int) *iscsi.BHS {
	var h iscsi.BHS
	h.Init(iscsi.OpSCSICommand, flags|iscsi.AttrSimple)
	h[9] = 1 // LUN 1
	h.SetEDTL(uint32(edtl))
	h[32] = op
	binary.BigEndian.PutUint32(h[34:], uint32(length))
	return &h
}

func readCommand(n int) *iscsi.BHS {
	return command(fakeRead, iscsi.FlagFinal|iscsi.FlagRead, n, n)
}

func writeCommand(n int, final bool) *iscsi.BHS {
	f := byte(iscsi.FlagWrite)
	if final {
		f |= iscsi.FlagFinal
	}
	return command(fakeWrite, f, n, n)
}

// dataOut sends a part of a command's data.
func (c *client) dataOut(itt, ttt, sn uint32, off int, data []byte, final bool) {
	c.t.Helper()
	var h iscsi.BHS
	h.Init(iscsi.OpDataOut, 0)
	if final {
		h.SetFlags(iscsi.FlagFinal)
	}
	h[9] = 1 // LUN 1
	h.SetITT(itt)
	h.SetTTT(ttt)
	h.SetDataSN(sn)
	h.SetOffset(uint32(off))
	c.send(&h, data)
}

// write sends a write with as much unsolicited data as was agreed to, and serves R2Ts until the response comes.
func (c *client) write(data []byte) answer {
	c.t.Helper()
	first := min(len(data), c.params.FirstBurst)
	now := 0
	if c.params.ImmediateData {
		now = min(first, c.params.MaxSend)
	}
	if c.params.InitialR2T {
		first = now
	}
	h := writeCommand(len(data), now == first)
	c.send(h, data[:now])
	c.burst(h.ITT(), iscsi.NoTag, data, now, first)
	for {
		a, err := c.recv()
		if err != nil {
			c.t.Fatal(err)
		}
		if a.Opcode() != iscsi.OpR2T {
			return a
		}
		c.burst(a.ITT(), a.TTT(), data, int(a.Offset()), int(a.Offset()+a.Desired()))
	}
}

func (c *client) burst(itt, ttt uint32, data []byte, from, to int) {
	for sn := uint32(0); from < to; sn++ {
		n := min(to-from, c.params.MaxSend)
		c.dataOut(itt, ttt, sn, from, data[from:from+n], from+n == to)
		from += n
	}
}

// read does a read and returns its data and the last PDU.
func (c *client) read(n int) (data []byte, last answer) {
	c.t.Helper()
	c.send(readCommand(n), nil)
	for {
		a, err := c.recv()
		if err != nil {
			c.t.Fatal(err)
		}
		if a.Opcode() == iscsi.OpDataIn {
			if int(a.Offset()) != len(data) {
				c.t.Fatalf("Data-In at %d, want %d", a.Offset(), len(data))
			}
			data = append(data, a.data...)
			if !a.Has(iscsi.FlagStatus) {
				continue
			}
		}
		return data, a
	}
}
