package local

import (
	"net"
	"strings"
	"testing"
)

// Two clusters that want the same addresses never get them, nor does one give an address twice.
func TestNetworks(t *testing.T) {
	a, err := claimNetwork("127.254.7")
	if err != nil {
		t.Fatal(err)
	}
	b, err := claimNetwork("127.254.7")
	if err != nil {
		t.Fatal(err)
	}
	defer b.release()
	if a.prefix != "127.254.7" || b.prefix == a.prefix {
		t.Fatal(a.prefix, b.prefix)
	}
	first, err := a.address(3)
	if err != nil || !strings.HasPrefix(first, "127.254.7.3:") {
		t.Fatal(first, err)
	}
	l, err := net.Listen("tcp", "127.254.7.3:21001") // somebody else's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if second, err := a.address(3); err != nil || second != "127.254.7.3:21002" {
		t.Error(first, second, err)
	}
	a.release()
	c, err := claimNetwork("127.254.7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	if c.prefix != "127.254.7" {
		t.Error("a released network is not free:", c.prefix)
	}
}
