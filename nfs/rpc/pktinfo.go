package rpc

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// datagrams reads and writes those of a socket. A host has several addresses, of which one moves with the leader, and a
// client takes an answer only from the one that it has asked: so a reply goes out from where its call came in.
type datagrams struct {
	conn net.PacketConn
	udp  *net.UDPConn // nil if conn is none, or the system does not tell addresses
}

func newDatagrams(p net.PacketConn) datagrams {
	u, ok := p.(*net.UDPConn)
	if !ok {
		return datagrams{conn: p}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return datagrams{conn: p}
	}
	told := false
	err = raw.Control(func(fd uintptr) { // a socket is of one family; the other's option fails
		told = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) == nil
		told = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) == nil || told
	})
	if err != nil || !told {
		u = nil
	}
	return datagrams{conn: p, udp: u}
}

// envelope is where a datagram came from and to.
type envelope struct {
	from   net.Addr
	client netip.AddrPort
	server netip.AddrPort
	source []byte // the control message that sends from server
}

func (d datagrams) read(b []byte) (int, envelope, error) {
	e := envelope{server: addrPort(d.conn.LocalAddr())}
	if d.udp == nil {
		n, from, err := d.conn.ReadFrom(b)
		if err == nil {
			e.from, e.client = from, addrPort(from)
		}
		return n, e, err
	}
	oob := make([]byte, 128)
	n, used, _, from, err := d.udp.ReadMsgUDP(b, oob)
	if err != nil {
		return n, e, err
	}
	e.from, e.client = from, addrPort(from)
	if to, source := destination(oob[:used]); to.IsValid() {
		e.server, e.source = netip.AddrPortFrom(to.Unmap(), e.server.Port()), source
	}
	return n, e, nil
}

func (d datagrams) write(b []byte, e envelope) error {
	if e.source == nil {
		_, err := d.conn.WriteTo(b, e.from)
		return err
	}
	_, _, err := d.udp.WriteMsgUDP(b, e.source, e.from.(*net.UDPAddr))
	return err
}

// destination reads the control message that tells where a datagram was sent to (ip(7), ipv6(7)), and makes the one that sends
// from there.
func destination(oob []byte) (netip.Addr, []byte) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, nil
	}
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			at := [4]byte(m.Data[4:8])
			if at == [4]byte{} { // not every kernel tells the local address of a datagram that was sent to one
				at = [4]byte(m.Data[8:12])
			}
			return netip.AddrFrom4(at), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: at})
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			at := [16]byte(m.Data[:16])
			return netip.AddrFrom16(at), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: at})
		}
	}
	return netip.Addr{}, nil
}
