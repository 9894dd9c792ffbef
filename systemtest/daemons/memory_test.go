package daemons

import (
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// wce tells whether MODE SENSE says that there is a write cache.
func wce(t *testing.T, d *initiator.Disk) bool {
	t.Helper()
	b := make([]byte, 64)
	if _, err := d.Command(t.Context(), []byte{0x1a, 8, 0x08, 0, byte(len(b)), 0}, nil, b); err != nil {
		t.Fatal(err)
	}
	return b[4+2]&0x04 != 0
}

// TestMemory: a volume whose durability is memory, through every kind of death that this test can arrange. SIGKILL does not take the
// page cache, nor what a disk's own cache has: nothing may be lost here at all, flushed or not, though the program has to act as
// if it could. A loss of power is simulated (systemtest/sim).
func TestMemory(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}, Durability: api.Memory})
	if v := settled(t, c).Volumes[0]; v.Durability != api.Memory || !v.Cached || !wce(t, d) {
		t.Fatalf("%+v", v)
	}
	write := func(at int, b byte) {
		t.Helper()
		if err := d.WriteAt(t.Context(), pattern(4096, b), int64(at)*4096); err != nil {
			t.Fatal(err)
		}
	}
	all := func(n int, b byte) {
		t.Helper()
		for at := range n {
			check(t, d, int64(at)*4096, 4096, b)
		}
	}
	// A member dies and comes back within a moment: it is another incarnation, leaves, and is brought back.
	for at := range 50 {
		write(at, 1)
	}
	for round, victim := range []int{0, 1} {
		if err := c.Kill(victim); err != nil {
			t.Fatal(err)
		}
		write(0, 1)
		if err := c.Start(victim); err != nil {
			t.Fatal(err)
		}
		if v := settled(t, c).Volumes[0]; v.Losses != 0 {
			t.Fatalf("round %d: a survivor was not preferred: %+v", round, v)
		}
		all(50, 1)
	}
	// All of them die, with writes that nobody has flushed and one that was.
	for at := range 50 {
		write(at, 2)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for at := range 25 {
		write(at, 3)
	}
	d.Close()
	for i := range c.Nodes {
		if err := c.Kill(i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.Nodes {
		if err := c.Start(i); err != nil {
			t.Fatal(err)
		}
	}
	v := settled(t, c).Volumes[0]
	if v.Losses != 1 {
		t.Fatalf("nobody says that what was not flushed may be lost: %+v", v)
	}
	d = login(t, c)
	for at := 25; at < 50; at++ {
		check(t, d, int64(at)*4096, 4096, 2)
	}
	all(25, 3)
	// And back to disk, in use: the cache is gone when everything is durable.
	if _, err := c.Client().SetDurability(t.Context(), "v", api.NewDurability{Durability: api.Disk}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "the write cache to be gone", func(s api.Status) bool {
		return s.Leader != "" && s.Volumes[0].Durability == api.Disk && !s.Volumes[0].Cached
	})
	write(0, 4)
	if wce(t, d) {
		t.Fatal("hosts are told of a write cache, and there is none")
	}
	if _, err := c.Client().SetDurability(t.Context(), "v", api.NewDurability{Durability: "both"}); err == nil {
		t.Fatal("it has no such durability")
	}
	d.Close()
}
