package vip

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const formerConnections = "PMSAPP_VIP_TEST_FORMER" // of a host's process: the connections of the one before, as JSON

// TestPowerCut: a client has sent a call, its kernel knows that it arrived, and the leader's host is gone without a word. It is woken by the next
// one, and by nothing else for as long as it has patience.
func TestPowerCut(t *testing.T) {
	if former, ok := os.LookupEnv(formerConnections); ok {
		host(t, former)
		return
	}
	if os.Getenv(inside) == "" {
		inNewNamespace(t)
		return
	}
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint("told ", told), func(t *testing.T) { powerCut(t, told) })
	}
}

// host is a process in a network namespace of its own that has the address.
func host(t *testing.T, list string) {
	var former []Connection
	if err := json.Unmarshal([]byte(list), &former); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the interface", func() bool {
		l, err := netlink.LinkByName("near")
		return err == nil && netlink.LinkSetUp(l) == nil
	})
	h := New(Config{Addr: netip.MustParseAddr(guarded), Prefix: 24, Interface: "near", Lifetime: 3 * time.Second,
		Services: []Service{{Port: 2049, Stream: silent}}, Former: func() []Connection { return former }, Log: slog.Default()})
	h.Hold()
	waitFor(t, "the address", h.Bound)
	fmt.Println("held")
	waitFor(t, "a connection", func() bool {
		all, err := h.Connections()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			return false
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("has %s\n", b)
		return true
	})
	select {}
}

// startHost starts a host at a bridge, and returns what it says and what cuts it off.
func startHost(t *testing.T, bridge netlink.Link, name string, former []Connection) (says func(prefix string) string, cut func()) {
	t.Helper()
	list, err := json.Marshal(former)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "near"}); err != nil {
		t.Fatal(err)
	}
	port, near := link(t, name), link(t, "near")
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), formerConnections+"="+string(list))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsPid(near, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	gone := false
	cut = func() {
		if !gone {
			gone = true
			netlink.LinkDel(port) // before its kernel can say anything
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(cut)
	lines := bufio.NewScanner(out)
	var said []string // and not asked for yet: a connection may be seen before its call is read, or after
	return func(prefix string) string {
		t.Helper()
		for i := 0; i < len(said) || lines.Scan(); i++ {
			if i == len(said) {
				said = append(said, lines.Text())
			}
			if s, ok := strings.CutPrefix(said[i], prefix); ok {
				said = slices.Delete(said, i, i+1)
				return s
			}
		}
		t.Fatalf("%s does not say %q", name, prefix)
		return ""
	}, cut
}

func powerCut(t *testing.T, told bool) {
	bridge := netlink.Link(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	bridge = link(t, "br0")
	defer netlink.LinkDel(bridge)
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	says, cut := startHost(t, bridge, "first", nil)
	says("held")
	c, err := net.DialTimeout("tcp", guarded+":2049", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("call")); err != nil {
		t.Fatal(err)
	}
	says("read")
	var former []Connection
	if err := json.Unmarshal([]byte(says("has ")), &former); err != nil {
		t.Fatal(err)
	}
	if len(former) != 1 || former[0].Port != 2049 || former[0].Client.String() != c.LocalAddr().String() {
		t.Fatal(former, c.LocalAddr())
	}
	// The acknowledgment of the call may be delayed; without it the client would send the call again, and be reset for that.
	waitFor(t, "all to be acknowledged", func() bool { return unsent(t, c) == 0 })
	cut()
	if !told {
		former = nil
	}
	next, _ := startHost(t, bridge, "second", former)
	next("held")
	began := time.Now()
	wait := time.Second
	if told {
		wait = 10 * time.Second
	}
	c.SetReadDeadline(began.Add(wait))
	_, err = c.Read(make([]byte, 1))
	switch {
	case told && !errors.Is(err, syscall.ECONNRESET):
		t.Fatal("not woken: ", err)
	case told && time.Since(began) > 3*time.Second:
		t.Error("woken late: ", time.Since(began))
	case !told && !errors.Is(err, os.ErrDeadlineExceeded):
		t.Fatal("this test proves nothing: without being woken the client hears, too: ", err)
	}
}

// unsent is how many bytes that a connection was given are not acknowledged.
func unsent(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return n
}

// TestBareACK: a packet by hand, with the checksums that a kernel would compute.
func TestBareACK(t *testing.T) {
	b := bareACK(netip.MustParseAddr("192.0.2.7"), Connection{2049, netip.MustParseAddrPort("192.0.2.1:1023")})
	want := "45000028000000004006f6c7c0000207c0000201" + "080103ff000000000000000050100400"
	if got := fmt.Sprintf("%x", b[:36]); got[:len(want)] != want {
		t.Errorf("%s\n%s", got, want)
	}
	if len(b) != 40 || checksum(b[:20]) != 0 {
		t.Errorf("%x", b)
	}
}
