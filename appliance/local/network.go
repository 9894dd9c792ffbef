package local

import (
	"fmt"
	"net"
	"os"
)

// firstPort is where a network's ports begin: above 1024, and below those that the kernel gives to clients
// (net.ipv4.ip_local_port_range begins at 32768), so that no connection takes a port between its choice and its use.
const firstPort = 21000

// network is a /24 of 127.0.0.0/8 that belongs to one cluster: two that run at once, in one process or in several, never
// choose the same address. Who claims it holds an abstract Unix socket of its name, which ends with the process.
type network struct {
	prefix string // its first three bytes: "127.0.0"
	next   uint16 // port
	claim  net.Listener
}

// claimNetwork claims the wanted network, or, if another cluster has it or none is wanted, one that is free.
func claimNetwork(want string) (*network, error) {
	const number = 190 * 256 // 127.64.0 to 127.253.255
	start := os.Getpid() * 31
	for i := -1; i < number; i++ {
		prefix := want
		if i >= 0 {
			n := (start + i) % number
			prefix = fmt.Sprintf("127.%d.%d", 64+n/256, n%256)
		}
		if prefix == "" {
			continue
		}
		if l, err := net.Listen("unix", "@pmsapp-"+prefix); err == nil {
			return &network{prefix: prefix, next: firstPort, claim: l}, nil
		} else if i == number-1 {
			return nil, fmt.Errorf("claiming a network of 127.0.0.0/8 for a cluster: %w", err)
		}
	}
	panic("unreachable: the last turn returns")
}

// address returns an address of a host of the network (its last byte), with a port as port's.
func (n *network) address(host int) (string, error) {
	p, err := n.port(host)
	return fmt.Sprintf("%s.%d:%d", n.prefix, host, p), err
}

// port returns a port that is free for TCP and UDP at all the hosts, another at each call.
func (n *network) port(hosts ...int) (uint16, error) {
	var err error
	for range 1000 {
		p := n.next
		n.next++
		if err = n.try(hosts, p); err == nil {
			return p, nil
		}
	}
	return 0, fmt.Errorf("finding a port of %s.0/24 that is free for TCP and UDP: %w", n.prefix, err)
}

func (n *network) try(hosts []int, port uint16) error {
	for _, h := range hosts {
		addr := fmt.Sprintf("%s.%d:%d", n.prefix, h, port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		l.Close()
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		u.Close()
	}
	return nil
}

func (n *network) release() { n.claim.Close() }
