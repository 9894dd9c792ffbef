package vip

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const (
	leaderLock = "PMSAPP_VIP_TEST_LEADER" // of a leader's process: the file that it locks
	guarded    = "192.0.2.7"
)

// TestGuardianEnds: in order, with its process; and a guardian that is killed is told of.
func TestGuardianEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	var log strings.Builder
	for _, kill := range []bool{false, true} {
		g, err := NewGuardian(netip.MustParseAddr(guarded), 5*time.Second, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if kill {
			if err := syscall.Kill(g.pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-g.ended
		}
		g.Close()
		if told := strings.Contains(log.String(), "guardian of the virtual address has ended"); told != kill {
			t.Fatalf("killed: %v: %s", kill, log.String())
		}
		if err := syscall.Kill(g.pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Fatal("it is there: ", err)
		}
	}
}

// TestGuardianIgnores: signals that a process group gets, but for those that nobody can ignore.
func TestGuardianIgnores(t *testing.T) {
	g, err := NewGuardian(netip.MustParseAddr(guarded), 5*time.Second, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	if err != nil {
		t.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(b), "SigBlk:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	if n, err := strconv.ParseUint(mask, 16, 64); err != nil || n != ^uint64(1<<(syscall.SIGKILL-1)|1<<(syscall.SIGSTOP-1)) {
		t.Fatal(mask, err)
	}
}

// TestGuardian: when a leader's process is killed, its clients hear nothing, until another node announces the address: then they are told
// at once, and the former leader's host is without it.
func TestGuardian(t *testing.T) {
	if lock := os.Getenv(leaderLock); lock != "" {
		leader(t, lock)
		return
	}
	if os.Getenv(inside) != "" {
		t.Run("announced", func(t *testing.T) { guardedDeath(t, true) })
		t.Run("not announced", func(t *testing.T) { guardedDeath(t, false) })
		return
	}
	inNewNamespace(t)
}

// leader is the process of a leader, in a network namespace of its own, which ends by its death only.
func leader(t *testing.T, lock string) {
	g, err := NewGuardian(netip.MustParseAddr(guarded), 3*time.Second, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the interface", func() bool {
		l, err := netlink.LinkByName("near")
		return err == nil && netlink.LinkSetUp(l) == nil
	})
	h := New(Config{Addr: netip.MustParseAddr(guarded), Prefix: 24, Interface: "near", Lifetime: 3 * time.Second, Guardian: g,
		Services: []Service{{Port: 2049, Stream: silent}}, Log: slog.Default()})
	h.Hold()
	waitFor(t, "the address", h.Bound)
	fmt.Println("held")
	select {}
}

// silent reads calls of 4 bytes, and answers none.
func silent(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			return err
		}
		fmt.Println("read") // and no answer
	}
}

func guardedDeath(t *testing.T, announce bool) {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	near, far := link(t, "near"), link(t, "far")
	defer netlink.LinkDel(far)
	if err := netlink.AddrAdd(far, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(t.TempDir(), "lock")
	cmd := exec.Command(os.Args[0], "-test.run=^TestGuardian$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), leaderLock+"="+lock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)) // its namespace outlives it
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	if err := netlink.LinkSetNsPid(near, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	says := bufio.NewScanner(out)
	hear := func(what string) {
		t.Helper()
		for says.Scan() {
			if says.Text() == what {
				return
			}
		}
		t.Fatal("the leader does not say ", what)
	}
	hear("held")
	c, err := net.DialTimeout("tcp", guarded+":2049", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("call")); err != nil {
		t.Fatal(err)
	}
	hear("read")

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	died := time.Now()
	c.SetReadDeadline(died.Add(500 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the client was told of the death: ", n, err)
	}
	f, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal("a lock outlives the process: ", err)
	}
	if !hasAddress(t, space) {
		t.Fatal("the address is gone before anybody has announced it")
	}
	began := time.Now()
	if announce {
		if err := (kernel{}).announce(Config{Interface: "far", Addr: netip.MustParseAddr(guarded)}); err != nil {
			t.Fatal(err)
		}
	}
	c.SetReadDeadline(began.Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal("not reset: ", n, err)
	}
	switch took := time.Since(died); {
	case announce && time.Since(began) > time.Second:
		t.Error("told late: ", time.Since(began))
	case !announce && (took < patience(3*time.Second)-100*time.Millisecond || took > 2*patience(3*time.Second)):
		t.Error("told at another time: ", took)
	}
	if announce {
		waitFor(t, "the address to go", func() bool { return !hasAddress(t, space) })
		if took := time.Since(began); took > time.Second {
			t.Error("the address has gone late: ", took)
		}
	} else if !hasAddress(t, space) {
		t.Error("the address was removed, which may be a new process's")
	}
}

// hasAddress looks into a network namespace.
func hasAddress(t *testing.T, space *os.File) bool {
	t.Helper()
	has := make(chan bool)
	go func() {
		defer close(has)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		l, err := netlink.LinkByName("near")
		if err != nil {
			t.Error(err)
			return
		}
		all, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Error(err)
		}
		has <- len(all) > 0
	}()
	return <-has
}
