package guest

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestPowerCutIsTold: clients that have nothing to send, but wait for an answer or for nothing, hear of the death of the leader's
// host from the next leader: their own timers would tell them after a minute (NFS) or several seconds (iSCSI).
func TestPowerCutIsTold(t *testing.T) {
	if _, yes := outside(t); yes {
		return
	}
	newBridge(t)
	c := newCluster(t, true)
	c.newShare(1 << 30)
	c.whole()
	for round := range 2 {
		var idle []net.Conn
		for _, port := range []string{"2049", "3260"} {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(virtualAddress, port), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			idle = append(idle, conn)
		}
		// The leader tells the others of them meanwhile, and leaves them in peace.
		idle[0].SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := idle[0].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		began, back := c.kill(cut)
		for _, conn := range idle {
			conn.SetReadDeadline(began.Add(20 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("round %d: %s, %v after the power was cut: %v", round, conn.RemoteAddr(), time.Since(began), err)
			}
			t.Logf("round %d: %s was told after %v", round, conn.RemoteAddr(), time.Since(began).Round(time.Millisecond))
		}
		back()
		c.whole()
	}
}
