package target

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"pmsapp/internal/iscsi"
)

// loggingIn is a connection until it is a session's.
type loggingIn struct {
	srv      *Server
	conn     net.Conn
	reader   *iscsi.Reader
	writer   *iscsi.Writer
	pure     *iscsi.TargetLogin
	login    Login
	refusal  *Refusal
	deadline time.Time

	last   iscsi.BHS // the last request
	window int       // commands that the session may have under way
	statSN uint32
}

// log in runs the login of a connection. On success the session is registered, has a nexus, and the last response was
// sent; otherwise what there was to say was said.
func (l *loggingIn) run() (*session, error) {
	cfg := &l.srv.cfg
	l.deadline = time.Now().Add(l.srv.tunables.Load().LoginTimeout)
	l.conn.SetDeadline(l.deadline)
	l.reader, l.writer = iscsi.NewReader(l.conn), iscsi.NewWriter(l.conn)
	l.login.Portal, l.login.Remote = addrPort(l.conn.LocalAddr()), addrPort(l.conn.RemoteAddr())
	l.login.Group = cfg.Group
	if cfg.GroupOf != nil {
		l.login.Group = cfg.GroupOf(l.login.Portal)
	}
	l.pure = iscsi.NewTargetLogin(iscsi.TargetLoginConfig{
		Wish: wish(cfg.Limits), PortalGroup: l.login.Group, Rand: rand.Reader, Auth: l.auth})
	for {
		h, err := l.reader.Next()
		if err != nil {
			return nil, err
		}
		if h.Opcode() != iscsi.OpLoginReq {
			return nil, fmt.Errorf("%w: %s before login", ErrProtocol, h.Opcode())
		}
		l.last = *h
		data := make([]byte, l.reader.Pending())
		if err := l.reader.ReadData(data); err != nil {
			return nil, err
		}
		pdu, step := l.pure.Request(&l.last, data)
		switch step {
		case iscsi.LoginReady:
			return l.open()
		case iscsi.LoginFailed:
			if l.refusal != nil {
				return nil, l.refuse(l.refusal)
			}
			status := pdu.BHS.LoginStatus()
			return nil, errors.Join(&Refusal{Status: status, Why: whyFailed(status)}, l.send(pdu))
		}
		if err := l.send(pdu); err != nil {
			return nil, err
		}
	}
}

// whyFailed says what an admin may look for.
func whyFailed(s iscsi.LoginStatus) string {
	if s == iscsi.LoginAuthFailed {
		return "it did not prove who it is: its CHAP name or secret is missing or wrong, or is not that of this volume"
	}
	return "the login was not in order"
}

func wish(l Limits) iscsi.Wish {
	return iscsi.Wish{HeaderDigest: iscsi.DigestAny, DataDigest: iscsi.DigestAny, ImmediateData: true,
		MaxRecv: l.MaxRecv, MaxBurst: l.MaxBurst, FirstBurst: l.FirstBurst, MaxR2T: l.MaxR2T, Time2Wait: 2}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// names copies what the login has said about itself.
func (l *loggingIn) names(n iscsi.Names) {
	l.login.Discovery, l.login.Initiator, l.login.Alias = n.Discovery, n.Initiator, n.Alias
	l.login.Target, l.login.ISID = n.Target, n.ISID
}

func (l *loggingIn) auth(n iscsi.Names) (iscsi.Auth, iscsi.LoginStatus) {
	l.names(n)
	a, err := l.srv.cfg.Provider.Credentials(l.login)
	if err == nil {
		return a, iscsi.LoginOK
	}
	l.refusal = refusalOf(err)
	return iscsi.Auth{}, l.refusal.Status
}

func refusalOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Status: iscsi.LoginTargetError, Why: err.Error()}
}

// open makes the session: the login is in order.
func (l *loggingIn) open() (*session, error) {
	n := l.pure.Names()
	l.names(n)
	l.login.Vendor, l.login.User = n.Vendor, l.pure.User()
	s, err := l.srv.register(l, n)
	if err != nil {
		return nil, l.refuse(refusalOf(err))
	}
	l.login.Drop, l.login.Stop = s.drop, s.stop
	s.login = l.login
	var keys []iscsi.Pair
	if !l.login.Discovery {
		o, err := l.srv.cfg.Provider.Open(l.login)
		if err == nil && o.Nexus == nil {
			err = errors.New("the provider made no nexus")
		}
		if err != nil {
			l.srv.abandon(s, err)
			return nil, l.refuse(refusalOf(err))
		}
		s.nexus, s.trusted = o.Nexus, o.Trusted
		if o.Digests && !(s.params.HeaderDigest && s.params.DataDigest) {
			r := &Refusal{Status: iscsi.LoginInitiatorError, Why: "digests are required"}
			l.srv.abandon(s, r)
			return nil, l.refuse(r)
		}
		keys = o.Keys
	}
	s.opened.Store(true)
	l.window = s.window.size
	if err := l.send(l.pure.Accept(s.tsih, keys)); err != nil {
		l.srv.abandon(s, err)
		return nil, err
	}
	l.reader.SetMaxData(s.params.MaxRecv)
	l.reader.SetDigests(s.params.HeaderDigest, s.params.DataDigest)
	l.writer.SetDigests(s.params.HeaderDigest, s.params.DataDigest)
	l.conn.SetDeadline(time.Time{})
	return s, nil
}

// refuse answers the login and returns why.
func (l *loggingIn) refuse(r *Refusal) error {
	return errors.Join(r, l.send(l.pure.Refuse(r.Status, r.Keys)))
}

func (l *loggingIn) send(p iscsi.LoginPDU) error {
	h := p.BHS
	if l.statSN == 0 {
		l.statSN = l.last.ExpStatSN()
	}
	h.SetStatSN(l.statSN)
	exp := l.firstCmdSN()
	h.SetExpCmdSN(exp)
	h.SetMaxCmdSN(exp + uint32(max(l.window, minQueue)) - 1)
	l.statSN++
	if err := l.writer.Write(&h, nil, p.Data); err != nil {
		return err
	}
	return l.writer.Flush()
}

// firstCmdSN is the CmdSN of the session's first command. The login's requests are immediate, so it is theirs (RFC 7143
// 11.12.1).
func (l *loggingIn) firstCmdSN() uint32 {
	if l.last.Immediate() {
		return l.last.CmdSN()
	}
	return l.last.CmdSN() + 1
}
