package replica

import (
	"bytes"
	"errors"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// TestSharedFlush has a flush of a device fail for one replica of it: it failed for all of them (invariant 10).
func TestSharedFlush(t *testing.T) {
	for seed := range uint64(20) {
		m := newMachine(seed)
		m.onDevice()
		fails := 0
		m.d.fails = func(path string) bool { fails--; return fails >= 0 && path == "/pool" }
		noErr(t, m.start())
		var specs []peer.Spec
		for i := range byte(3) {
			s := peer.Spec{Volume: ids.Volume{i + 1}, Lineage: ids.Lineage{1}, Pool: m.pool, Size: crashSize - 512, Region: crashRegion}
			noErr(t, m.call(peer.Command{Kind: peer.Create, Volume: s.Volume, Spec: s}).Err)
			specs = append(specs, s)
		}
		memory, idle, fate := specs[0].Volume, specs[1].Volume, specs[2].Volume
		noErr(t, m.open())
		was := incarnations(t, m)
		ones := bytes.Repeat([]byte{1}, 4096)
		// One was written and is clean, one has what was not flushed, and a third one's flush fails.
		noErr(t, m.call(write(idle, 0, ones, 1)).Err)
		noErr(t, m.call(peer.Command{Kind: peer.Clear, Volume: idle, Regions: []peer.RegionSeq{{Region: 0, Seq: 1}}}).Err)
		noErr(t, m.call(write(idle, crashRegion, ones, 2)).Err)
		noErr(t, m.call(write(memory, 0, ones, 1)).Err)
		noErr(t, m.call(volatile(write(memory, 0, bytes.Repeat([]byte{2}, 4096), 1))).Err)
		noErr(t, m.call(write(fate, 0, ones, 1)).Err)
		fails = 1
		if err := m.call(write(fate, 0, ones, 1)).Err; !errors.Is(err, peer.ErrMedium) {
			t.Fatal(err)
		}
		// Who has answered from memory is another one, without being asked to flush.
		if err := m.call(readAt(memory, 0, make([]byte, 4096))).Err; !errors.Is(err, peer.ErrNoReplica) {
			t.Fatalf("what it had not flushed may be lost, and it answers %v", err)
		}
		// Who had nothing to lose is as it was, also its checksums.
		for _, at := range []int{0, crashRegion / sumBlock} {
			v := &volume{spec: specs[1]}
			if err := m.damage(v, at); err != nil {
				t.Fatal(err)
			}
			if r := m.node.pools[0].find(idle); r.sums.off.Load() || !r.sums.says(int64(at)) {
				t.Fatal("its checksums are not used any more")
			}
		}
		noErr(t, m.call(peer.Command{Kind: peer.Clear, Volume: idle, Regions: []peer.RegionSeq{{Region: 1, Seq: 2}}}).Err)
		noErr(t, m.call(write(idle, 0, ones, 3)).Err)
		noErr(t, m.open()) // a fence has every replica opened anew
		now := incarnations(t, m)
		if now[memory] == was[memory] || now[idle] != was[idle] || now[fate] != was[fate] {
			t.Fatalf("incarnations: %v, and were %v", now, was)
		}
		m.node.Close()
	}
}

func incarnations(t *testing.T, m *machine) map[ids.Volume]ids.ID {
	t.Helper()
	out := map[ids.Volume]ids.ID{}
	for _, r := range m.node.pools[0].all() {
		d := r.describe()
		if d.Foreign {
			t.Fatalf("volume %s is foreign", d.Spec.Volume)
		}
		out[d.Spec.Volume] = d.Incarnation
	}
	return out
}
