package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// The network of a test: a bridge, on which the test itself has the first address.
const (
	network        = "10.77.0.0/24"
	virtualAddress = "10.77.0.50"
)

func nodeAddress(i int) string { return fmt.Sprintf("10.77.0.%d", 11+i) }

// newBridge makes the network.
func newBridge(t *testing.T) {
	t.Helper()
	sh(t, `ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip addr add 10.77.0.1/24 dev br0
ip link set br0 up
mkdir -p /run/netns`)
}

// cluster is three daemons, each in a network namespace of its own, with the ports of a real installation.
type cluster struct {
	*local.Cluster
	t *testing.T
}

// newCluster forms a cluster. With a virtual address, it is an interface's and moves with the leader.
func newCluster(t *testing.T, virtual bool) *cluster {
	t.Helper()
	const nodes = 3
	for i := range nodes {
		sh(t, `ip netns add node%[1]d
ip link add p%[1]d type veth peer name eth0 netns node%[1]d
ip link set p%[1]d master br0 up
ip -n node%[1]d link set lo up
ip -n node%[1]d addr add %[2]s/24 dev eth0
ip -n node%[1]d link set eth0 up`, i+1, nodeAddress(i))
	}
	dir := t.TempDir()
	// The daemon runs in the namespace that its configuration file's directory is named for.
	wrapper := filepath.Join(dir, "pmsapp")
	text := fmt.Sprintf(`#!/bin/sh
for a; do case $a in */pmsapp.toml) n=$(basename "$(dirname "$a")") ;; esac; done
exec ip netns exec "$n" %s "$@"
`, program.Build(t))
	if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	c := program.Cluster(t, local.Config{Binary: wrapper, Dir: dir, Nodes: nodes, Change: func(i int, c *config.Config) {
		ip := nodeAddress(i)
		c.Address = config.Address{Cluster: ip + ":7460", API: ip + ":7443", Portal: "0.0.0.0:3260", PeerPortal: ip + ":3261", NFS: "0.0.0.0:2049", Portmap: "0.0.0.0:111"}
		c.Virtual = config.Default().Virtual
		if virtual {
			c.Virtual.Portal, c.Virtual.Interface = virtualAddress+":3260", "eth0"
		} else {
			c.Address.Portal = ip + ":3260"
		}
	}})
	return &cluster{Cluster: c, t: t}
}

// whole waits until everything is served from replicas that are all in sync, by nodes that are all there.
func (c *cluster) whole() api.Status {
	c.t.Helper()
	st, err := c.WaitStatus(c.t.Context(), "all replicas to be in sync", 2*time.Minute, func(s api.Status) bool {
		ok := s.Leader != ""
		for _, v := range s.Volumes {
			ok = ok && v.Served
			for _, r := range v.Replicas {
				ok = ok && r.State == "in sync"
			}
		}
		for _, n := range s.Nodes {
			ok = ok && n.State == "alive" && n.Voter
		}
		return ok
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return st
}

// fault is how a leader dies.
type fault int

const (
	killed fault = iota // its process: the host is told by resets
	cut                 // its power: nothing comes from it any more
	faults
)

func (f fault) String() string { return [...]string{"process killed", "power cut"}[f] }

// kill has the leader die and returns a function that brings it back.
func (c *cluster) kill(f fault) (began time.Time, back func()) {
	c.t.Helper()
	leader := c.Index(c.whole().Leader)
	began = time.Now()
	if f == cut {
		sh(c.t, "ip link set p%d down", leader+1)
	}
	if err := c.Kill(leader); err != nil {
		c.t.Fatal(err)
	}
	return began, func() {
		c.t.Helper()
		if f == cut { // an interface that was switched on has no addresses but those of its configuration
			sh(c.t, "ip -n node%[1]d addr del %[2]s/24 dev eth0 2>/dev/null || true\nip link set p%[1]d up", leader+1, virtualAddress)
		}
		if err := c.Start(leader); err != nil {
			c.t.Fatal(err)
		}
	}
}
