package replica

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"pmsapp/replication/peer"
)

// raw calls change with the bytes of a block of a replica's data, past everything; false: there are none.
func (m *machine) raw(v *volume, index int, change func(b []byte)) bool {
	path := filepath.Join("/pool/replicas", v.spec.Volume.String(), fileData)
	off := int64(index) * sumBlock
	if m.device {
		at, ok := m.d.device.fs.Where(m.d.device.in(path), off)
		if !ok {
			return false
		}
		path, off = "/pool", at
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	n, err := m.d.find(path)
	if err != nil {
		return false
	}
	change(n.data.Read(off, sumBlock))
	return true
}

// proved damages a block of each region that is clean, before anything was read: whatever the crash has left, it is noticed.
func (m *machine) proved(v *volume) error {
	a := m.call(peer.Command{Kind: peer.ReadMap, Volume: v.spec.Volume})
	if a.Err != nil {
		return a.Err
	}
	active := map[uint32]bool{}
	for _, x := range a.Active {
		active[x.Region] = true
	}
	for reg := range regionsOf(v.spec) {
		first, end := int(reg)*crashRegion/sumBlock, int(v.spec.Size/sumBlock)
		if !active[reg] && first < end {
			if err := m.damage(v, first+m.rnd.Intn(min(crashRegion/sumBlock, end-first))); err != nil {
				return fmt.Errorf("region %d is clean: %w", reg, err)
			}
		}
	}
	return nil
}

// damage flips a bit of a block that is not zeros, or takes it away, looks whether that is noticed, and puts it right.
func (m *machine) damage(v *volume, index int) error {
	var was []byte
	if !m.raw(v, index, func(b []byte) { was = bytes.Clone(b) }) {
		if m.d.dead() {
			return errCrashed
		}
		return nil // a hole
	}
	r := m.node.pools[0].find(v.spec.Volume)
	if allZero(was) || r.state() != nil || r.sums.off.Load() {
		return nil
	}
	if m.failing && !r.sums.says(int64(index)) {
		return nil // a flush of the sums failed, or no unit could be had for them, and nobody has read the block since
	}
	read := func() error {
		got := make([]byte, 512)
		return m.call(peer.Command{Kind: peer.Read, Volume: v.spec.Volume, Off: int64(index)*sumBlock + 512*int64(m.rnd.Intn(8)), Len: 512, Data: got}).Err
	}
	change := func(with []byte) { m.raw(v, index, func(b []byte) { copy(b, with) }) }
	defer change(was)
	bad := bytes.Clone(was)
	if m.rnd.Chance(0.7) {
		bad[m.rnd.Intn(len(bad))] ^= 1 << m.rnd.Intn(8)
	} else {
		clear(bad)
	}
	change(bad)
	if err := read(); !errors.Is(err, peer.ErrMedium) {
		if m.d.dead() {
			return errCrashed
		}
		if m.device && r.sums.off.Load() {
			return nil // a flush of another file has failed: nothing is known from here on
		}
		return fmt.Errorf("block %d was damaged, and reading it says %v", index, err)
	}
	found := false
	for _, x := range m.call(peer.Command{Kind: peer.Extents, Volume: v.spec.Volume, Len: v.spec.Size}).Extents {
		found = found || x.Off <= int64(index)*sumBlock && x.Off+x.Len >= int64(index+1)*sumBlock || !allZero(bad)
	}
	if !found && !m.d.dead() {
		return fmt.Errorf("block %d was lost, and passes for a hole", index)
	}
	change(was)
	return m.ended(read())
}

// says tells whether the file has a sum of a block.
func (s *sums) says(index int64) bool {
	m := s.lock(index / leafSums)
	m.Lock()
	defer m.Unlock()
	var l leaf
	_, err := s.load(index/leafSums, &l)
	return err == nil && l[index%leafSums] != unknownSum
}
