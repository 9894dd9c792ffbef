package guest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmsapp/appliance/api"
)

// newShare makes a share that the guests may use.
func (c *cluster) newShare(size int64) {
	c.t.Helper()
	if _, err := c.Client().CreateShare(c.t.Context(), api.NewVolume{Name: "s", Size: size, Replicas: 2}); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.Client().ExportShare(c.t.Context(), "s", api.ShareRule{Client: network, Squash: "none"}); err != nil {
		c.t.Fatal(err)
	}
}

// mount mounts the share at the virtual address with no options: a "hard" mount, which waits for a server as long as it takes.
func (m *machine) mount() {
	m.t.Helper()
	m.run(time.Minute, "dmesg -C; rpcbind; rpc.statd; mkdir -p /mnt/s; mount -t nfs %s:/s /mnt/s; grep /mnt/s /proc/mounts", virtualAddress)
}

// noNFSErrors proves by the kernel's log that the NFS client met no error.
func (m *machine) noNFSErrors() {
	m.t.Helper()
	m.run(time.Minute, `! dmesg | grep -E '[Ss]tale|[Ee]rror|blocked for more|BUG:|WARNING:'`)
}

// TestGuestShare: two Linux clients with default options, files written and read, made, renamed, linked and removed, while
// leaders die. No call fails (EIO, ESTALE), none is lost or carried out twice, and each client sees what the other has left.
func TestGuestShare(t *testing.T) {
	img, yes := outside(t)
	if yes {
		return
	}
	newBridge(t)
	c := newCluster(t, true)
	c.newShare(4 << 30)
	var guests []*machine
	var loads []*load
	for i := 1; i <= 2; i++ {
		m := newMachine(t, img, i)
		m.mount()
		guests = append(guests, m)
		loads = append(loads, m.start("churn", "churn -dir /mnt/s -workers 4 -seed %d -manifest /host/manifest", i),
			m.start("blocks", "blocks -dir /mnt/s -workers 3 -seed %d", i))
	}
	fio := guests[0].fio("/mnt/s")
	var stalls []time.Duration
	for round := range *failovers {
		how := fault(round) % faults
		began, back := c.kill(how)
		goOn(t, loads, began)
		back()
		c.whole()
		stalls = append(stalls, standstill(loads, began))
		t.Logf("failover %d, %v: the clients stood still for %v", round+1, how, stalls[round].Round(10*time.Millisecond))
	}
	for _, l := range loads {
		t.Log(l.m.name, l.what, l.stop())
	}
	if err := <-fio; err != nil {
		t.Fatal(err)
	}
	t.Log(summary(stalls))
	for i, m := range guests {
		m.noNFSErrors()
		b, err := os.ReadFile(filepath.Join(m.shared, "manifest"))
		if err != nil {
			t.Fatal(err)
		}
		other := guests[1-i]
		if err := os.WriteFile(filepath.Join(other.shared, "others"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Log(other.name, other.run(time.Minute, "/host/inside compare -dir /mnt/s -manifest /host/others"))
	}
	for _, m := range guests {
		m.run(time.Minute, "umount /mnt/s")
	}
}
