package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// shout sends b to a port and waits a moment for what comes back; errors are the port's good right.
func shout(t *testing.T, network, addr string, b []byte) {
	c, err := net.DialTimeout(network, addr, 2*time.Second)
	if err != nil {
		t.Errorf("%s does not answer any more: %v", addr, err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(50 * time.Millisecond))
	c.Write(b)
	c.Read(make([]byte, 512))
}

// garbage is what ports get: noise, other protocols, and beginnings of the right one.
func garbage() [][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	all := [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("SSH-2.0-x\r\n"), []byte("\x00"), {},
		{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3}, // the beginning of a TLS hello
		bytes.Repeat([]byte{0xff}, 100_000), make([]byte, 100_000),
		append([]byte{0x43, 0x87}, make([]byte, 46)...),                               // a login without text
		append([]byte{0x43, 0x87, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 40)...), // one with 255 words of AHS and 16 MiB of text
	}
	for range 40 {
		b := make([]byte, 1+r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			b[0] = []byte{0x43, 0x01, 0x40, 0x16, 1, 2, 3, 0}[r.IntN(8)]
		}
		all = append(all, b)
	}
	return all
}

// memory is a process's resident set in bytes.
func memory(t *testing.T, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("no VmRSS")
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb << 10
}

// TestGarbage shouts at every port of every node while a host writes: no node ends, the host notices nothing, and 1000 idle
// connections to a port keep nobody out for longer than the login timeout.
func TestGarbage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 4 << 20, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	d := login(t, c, "v")
	want := content(4 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var longest time.Duration
	load.Go(func() {
		for i := 0; ctx.Err() == nil; i = (i + 1) % 1024 {
			begun := time.Now()
			if err := d.WriteAt(t.Context(), want[i*4096:(i+1)*4096], int64(i)*4096); err != nil {
				t.Error("writing meanwhile:", err)
				return
			}
			longest = max(longest, time.Since(begun))
		}
	})
	var pids []int
	for _, n := range c.Nodes {
		pids = append(pids, n.PID())
	}
	var work sync.WaitGroup
	for _, n := range c.Nodes {
		for _, addr := range []string{n.Config.Address.Cluster, n.Config.Address.API, n.Config.Address.Portal} {
			work.Go(func() {
				for _, b := range garbage() {
					shout(t, "tcp", addr, b)
				}
				// TLS as far as it goes; at the iSCSI port it goes nowhere.
				dial := &net.Dialer{Timeout: time.Second}
				if s, err := tls.DialWithDialer(dial, "tcp", addr, &tls.Config{InsecureSkipVerify: true}); err == nil {
					s.SetDeadline(time.Now().Add(100 * time.Millisecond))
					for _, b := range garbage()[:12] {
						s.Write(b)
					}
					s.Close()
				}
			})
		}
		work.Go(func() {
			for _, b := range garbage() {
				if len(b) < 60_000 {
					shout(t, "udp", n.Config.Address.Cluster, b)
				}
			}
		})
	}
	work.Wait()

	// Idle ones, half-open as a host leaves them that lost its power: nothing is sent, nothing closed.
	var raise syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &raise); err == nil && raise.Cur < 8192 {
		raise.Cur = min(8192, raise.Max)
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raise)
	}
	leader := c.Nodes[max(0, c.Index(status(t, c).Leader))]
	for _, addr := range []string{leader.Config.Address.Portal, leader.Config.Address.API, leader.Config.Address.Cluster} {
		var idle []net.Conn
		for range 1000 {
			conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
			if err != nil {
				t.Errorf("connection %d to %s: %v", len(idle), addr, err)
				break
			}
			idle = append(idle, conn)
		}
		login(t, c, "v").Close()
		if s := status(t, c); s.Leader != leader.Name || len(s.Warnings) > 0 {
			t.Errorf("with 1000 idle connections to %s: %s leads, warnings %q", addr, s.Leader, s.Warnings)
		}
		for _, conn := range idle {
			conn.Close()
		}
	}
	cancel()
	load.Wait()
	if longest > 3*time.Second {
		t.Errorf("a write took %v", longest)
	}
	for i, n := range c.Nodes {
		if n.PID() != pids[i] {
			t.Fatalf("%s has ended: %s", n.Name, n.Tail(20))
		}
		if m := memory(t, n.PID()); m > 200<<20 {
			t.Errorf("%s has %d MiB in memory", n.Name, m>>20)
		}
		b, _ := os.ReadFile(n.Log)
		if len(b) > 1<<20 {
			t.Errorf("%s logged %d bytes over garbage: %s", n.Name, len(b), strings.Join(strings.Split(string(b[len(b)-1000:]), "\n"), "\n"))
		}
	}
	if s := status(t, c); !synced(s) {
		t.Errorf("after all: %+v", s.Volumes)
	}
	t.Logf("the longest write took %v", longest)
}

func status(t *testing.T, c *local.Cluster) api.Status {
	t.Helper()
	s, err := c.Client().Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
