package vip

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// connections are the established ones to the address, in order.
func (kernel) connections(c Config) (all []Connection, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // the latter has sockets that listen on every address
		list, err := netlink.SocketDiagTCP(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // which may lack some; we look again
			return nil, fmt.Errorf("asking for connections: %w", err)
		}
		for _, s := range list {
			if to, ok := netip.AddrFromSlice(s.ID.Source); !ok || s.State != netlink.TCP_ESTABLISHED || to.Unmap() != c.Addr {
				continue
			}
			if from, ok := netip.AddrFromSlice(s.ID.Destination); ok && len(all) < MaxConnections {
				all = append(all, Connection{s.ID.SourcePort, netip.AddrPortFrom(from.Unmap(), s.ID.DestinationPort)})
			}
		}
	}
	slices.SortFunc(all, func(a, b Connection) int { return cmp.Or(a.Client.Compare(b.Client), cmp.Compare(a.Port, b.Port)) })
	return all, nil
}

// wake sends each client a segment that is none of its connection, so that it answers with one that is, to whoever has the address now.
func (kernel) wake(c Config, all []Connection) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW) // which receives nothing
	if err != nil {
		return fmt.Errorf("opening a raw socket: %w", err)
	}
	defer unix.Close(fd)
	for _, x := range all {
		if !x.Client.Addr().Is4() {
			continue
		}
		to := &unix.SockaddrInet4{Addr: x.Client.Addr().As4()}
		if e := unix.Sendto(fd, bareACK(c.Addr, x), 0, to); e != nil {
			err = fmt.Errorf("sending to %s: %w", x.Client, e) // one is enough to be told
		}
	}
	return err
}

// bareACK is an IPv4 packet (RFC 791) with a TCP segment (RFC 9293) from the address to a client: no data, sequence and acknowledgment
// number 0. A connection for which those are not acceptable answers it with its own numbers (RFC 9293 3.10.7.4).
func bareACK(from netip.Addr, c Connection) []byte {
	src, dst := from.As4(), c.Client.Addr().As4()
	b := make([]byte, 40)
	b[0] = 4<<4 | 5 // version, header in words
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, unix.IPPROTO_TCP // hops
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
	t := b[20:]
	binary.BigEndian.PutUint16(t[0:], c.Port)
	binary.BigEndian.PutUint16(t[2:], c.Client.Port())
	t[12], t[13] = 5<<4, 1<<4 // header in words; ACK
	binary.BigEndian.PutUint16(t[14:], 1024)
	pseudo := append(append(slices.Clone(src[:]), dst[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(t)))
	binary.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))
	return b
}

// checksum is the Internet's (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
