package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel is the network of this host.
type kernel struct{}

// address is the address as netlink wants it, with its lifetime.
func address(c Config) *netlink.Addr {
	life := int(c.Lifetime.Seconds())
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: c.Addr.AsSlice(), Mask: net.CIDRMask(c.Prefix, c.Addr.BitLen())},
		// A secondary label would show in old tools; the kernel wants none. Preferred may not exceed valid.
		ValidLft: life, PreferedLft: life,
	}
}

func (kernel) add(c Config) (bool, error) {
	link, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", c.Interface, err)
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", c.Interface, err)
	}
	fresh := true
	for _, a := range have {
		if got, ok := netip.AddrFromSlice(a.IP.To4()); ok && got == c.Addr {
			if a.ValidLft > 1<<30 { // for ever
				return false, fmt.Errorf("%s is a fixed address of %s: take it from the host's own configuration", got, c.Interface)
			}
			fresh = false
		}
	}
	if err := netlink.AddrReplace(link, address(c)); err != nil {
		if errors.Is(err, syscall.EPERM) {
			return false, fmt.Errorf("adding an address to %s needs CAP_NET_ADMIN: %w", c.Interface, err)
		}
		return false, fmt.Errorf("adding the address to %s: %w", c.Interface, err)
	}
	return fresh, nil
}

func (kernel) remove(c Config) error {
	link, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", c.Interface, err)
	}
	if err := netlink.AddrDel(link, address(c)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("removing the address from %s: %w", c.Interface, err)
	}
	return nil
}

// announce sends the gratuitous ARP of RFC 5227, 2.3 and 3, as a request and as a reply: some hosts heed only one of them.
func (kernel) announce(c Config) error {
	link, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", c.Interface, err)
	}
	mac := link.Attrs().HardwareAddr
	if len(mac) != 6 {
		return nil // no Ethernet: nobody keeps ARP entries
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: link.Attrs().Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for _, op := range []uint16{1, 2} {
		if err := unix.Sendto(fd, gratuitous(mac, c.Addr, op), 0, to); err != nil {
			return fmt.Errorf("sending on %s: %w", c.Interface, err)
		}
	}
	return nil
}

// gratuitous makes an Ethernet frame with an ARP packet (RFC 826) in which ip tells its own hardware address. op is 1, a
// request, or 2, a reply.
func gratuitous(mac net.HardwareAddr, ip netip.Addr, op uint16) []byte {
	four := ip.As4()
	f := make([]byte, 0, 60)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac...)
	f = append(f, 0x08, 0x06)                   // ARP
	f = append(f, 0x00, 0x01, 0x08, 0x00, 6, 4) // Ethernet and IPv4, lengths
	f = binary.BigEndian.AppendUint16(f, op)
	f = append(f, mac...)
	f = append(f, four[:]...)
	if op == 1 {
		f = append(f, 0, 0, 0, 0, 0, 0)
	} else {
		f = append(f, mac...)
	}
	f = append(f, four[:]...)
	return append(f, make([]byte, 60-len(f))...)
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
