// Package iscsitest is a small iSCSI target for tests of initiators. A test may take a connection over right after login
// and write every PDU itself, or let Serve collect the data of commands and answer them. It serves no other purpose: it
// trusts its initiator, and stops the test when it is surprised.
package iscsitest

import (
	"crypto/rand"
	"net"
	"sync"
	"testing"

	"pmsapp/internal/iscsi"
)

// Config is how a Target behaves at login.
type Config struct {
	Wish   iscsi.Wish // iscsi.DefaultWish if zero
	Auth   iscsi.Auth
	Window uint32 // commands that may be sent at once; 32 if 0
	// Decide, if not nil, accepts or refuses a login that is otherwise done, with keys for the initiator. It may set State.
	Decide func(*Conn) (iscsi.LoginStatus, []iscsi.Pair)
}

// Conn is a connection in full feature phase.
type Conn struct {
	net.Conn
	R      *iscsi.Reader
	Names  iscsi.Names
	Params iscsi.Params
	State  any // the test's own

	mu       sync.Mutex // guards what follows
	w        *iscsi.Writer
	statSN   uint32
	expCmdSN uint32
	window   uint32
}

// Listen accepts connections on loopback until the test ends. serve runs for each in a goroutine of its own, after its
// login; the connection is closed when it returns.
func Listen(t testing.TB, cfg Config, serve func(*Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	closed := false
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if closed {
				conn.Close()
			}
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				if c := Login(conn, cfg); c != nil {
					serve(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		closed = true
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// Login does the target's end of a login. It returns nil if that failed.
func Login(conn net.Conn, cfg Config) *Conn {
	if cfg.Wish == (iscsi.Wish{}) {
		cfg.Wish = iscsi.DefaultWish()
	}
	if cfg.Window == 0 {
		cfg.Window = 32
	}
	c := &Conn{Conn: conn, R: iscsi.NewReader(conn), w: iscsi.NewWriter(conn), statSN: 1000, window: cfg.Window}
	l := iscsi.NewTargetLogin(iscsi.TargetLoginConfig{Wish: cfg.Wish, PortalGroup: 1, Rand: rand.Reader,
		Auth: func(iscsi.Names) (iscsi.Auth, iscsi.LoginStatus) { return cfg.Auth, iscsi.LoginOK }})
	buf := make([]byte, iscsi.LoginMaxData)
	for {
		h, err := c.R.Next()
		if err != nil || c.R.ReadData(buf[:h.DataLen()]) != nil {
			return nil
		}
		c.expCmdSN = h.CmdSN()
		resp, step := l.Request(h, buf[:h.DataLen()])
		if step == iscsi.LoginReady {
			c.Names, c.Params = l.Names(), l.Params()
			status, keys := iscsi.LoginOK, []iscsi.Pair(nil)
			if cfg.Decide != nil {
				status, keys = cfg.Decide(c)
			}
			if status == iscsi.LoginOK {
				resp = l.Accept(1, keys)
			} else {
				resp, step = l.Refuse(status, keys), iscsi.LoginFailed
			}
		}
		if c.Send(&resp.BHS, resp.Data) != nil || step == iscsi.LoginFailed {
			return nil
		}
		if step == iscsi.LoginReady {
			break
		}
	}
	c.R.SetDigests(c.Params.HeaderDigest, c.Params.DataDigest)
	c.w.SetDigests(c.Params.HeaderDigest, c.Params.DataDigest)
	c.R.SetMaxData(c.Params.MaxRecv)
	return c
}

// Send sends a PDU with the right sequence numbers at once.
func (c *Conn) Send(h *iscsi.BHS, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch h.Opcode() {
	case iscsi.OpDataIn:
		if h.Has(iscsi.FlagStatus) {
			h.SetStatSN(c.statSN)
			c.statSN++
		}
	case iscsi.OpR2T:
		h.SetStatSN(c.statSN)
	default:
		h.SetStatSN(c.statSN)
		if h.Opcode() != iscsi.OpNopIn || h.ITT() != iscsi.NoTag {
			c.statSN++
		}
	}
	h.SetExpCmdSN(c.expCmdSN)
	h.SetMaxCmdSN(c.expCmdSN + c.window - 1)
	if err := c.w.Write(h, nil, data); err != nil {
		return err
	}
	return c.w.Flush()
}

// SendRaw sends a PDU as it is.
func (c *Conn) SendRaw(h *iscsi.BHS, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.w.Write(h, nil, data); err != nil {
		return err
	}
	return c.w.Flush()
}

// StatSN returns the next StatSN.
func (c *Conn) StatSN() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.statSN
}

// Next reads a PDU with its data, and keeps count of commands. The header and the AHS are valid until the next call.
func (c *Conn) Next() (*iscsi.BHS, []byte, error) {
	h, err := c.R.Next()
	if err != nil {
		return nil, nil, err
	}
	data := make([]byte, h.DataLen())
	if err := c.R.ReadData(data); err != nil {
		return nil, nil, err
	}
	if !h.Immediate() && h.Opcode() != iscsi.OpDataOut {
		c.mu.Lock()
		c.expCmdSN = h.CmdSN() + 1
		c.mu.Unlock()
	}
	return h, data, nil
}
