package vip

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const inside = "PMSAPP_VIP_TEST_NAMESPACE"

// TestOnAnInterface runs this test's binary again in a network namespace of its own: there the address is added with its
// lifetime and announced, is gone after Release, and goes by itself when nobody renews it.
func TestOnAnInterface(t *testing.T) {
	if os.Getenv(inside) != "" {
		inNamespace(t)
		return
	}
	inNewNamespace(t)
}

// inNewNamespace runs a test again, in a process with a network namespace of its own.
func inNewNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: IT NEEDS ROOT, to make a network namespace")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip("SKIPPED: THIS MACHINE DOES NOT ALLOW NETWORK NAMESPACES")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func inNamespace(t *testing.T) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	near, far := link(t, "near"), link(t, "far")
	heard := listenARP(t, far.Attrs().Index)
	c := Config{Addr: netip.MustParseAddr("192.0.2.7"), Prefix: 24, Interface: "near", Lifetime: 2 * time.Second,
		Services: []Service{{Port: 3260, Stream: serve}}, Log: slog.New(slog.DiscardHandler)}
	h := New(c)
	h.Hold()
	waitFor(t, "the address", h.Bound)
	if a := addressOf(t, near); a == nil || a.ValidLft < 1 || a.ValidLft > 2 {
		t.Fatalf("%+v", a)
	}
	wants := map[string]bool{
		string(gratuitous(near.Attrs().HardwareAddr, c.Addr, 1)): true,
		string(gratuitous(near.Attrs().HardwareAddr, c.Addr, 2)): true,
	}
	limit := time.After(10 * time.Second)
	for len(wants) > 0 {
		select {
		case f := <-heard:
			delete(wants, string(f))
		case <-limit:
			t.Fatal("not announced")
		}
	}
	// Renewed: it is there after twice its lifetime.
	until := time.Now().Add(4 * time.Second)
	waitFor(t, "two lifetimes", func() bool {
		if addressOf(t, near) == nil {
			t.Fatal("not renewed")
		}
		return time.Now().After(until)
	})
	h.Release()
	if addressOf(t, near) != nil {
		t.Fatal("not removed")
	}
	// A node that hangs: nobody renews.
	if fresh, err := (kernel{}).add(c); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	waitFor(t, "the kernel takes the address away", func() bool { return addressOf(t, near) == nil })
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l
}

func addressOf(t *testing.T, l netlink.Link) *netlink.Addr {
	t.Helper()
	all, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.IP.Equal(net.IPv4(192, 0, 2, 7)) {
			return &a
		}
	}
	return nil
}

// listenARP hands on the ARP frames that arrive at an interface.
func listenARP(t *testing.T, index int) <-chan []byte {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ARP)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		t.Fatal(err)
	}
	heard, quit, gone := make(chan []byte, 64), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		b := make([]byte, 2048)
		for {
			select {
			case <-quit:
				return
			default:
			}
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue // the timeout
			}
			f := bytes.Clone(b[:n])
			if n < 60 { // the padding is not always kept
				f = append(f, make([]byte, 60-n)...)
			}
			select {
			case heard <- f:
			default:
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-gone; unix.Close(fd) })
	return heard
}
