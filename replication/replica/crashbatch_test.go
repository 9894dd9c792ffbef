package replica

import (
	"encoding/binary"

	"pmsapp/replication/peer"
)

// hold keeps a replica's small writes waiting, so that release has them carried out as one batch.
func (b *batcher) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runners += batchRunners
}

func (b *batcher) release(p *pool, r *replica) {
	b.mu.Lock()
	b.runners -= batchRunners
	start := len(b.waiting) > 0 && b.runners < batchRunners
	if start {
		b.runners++
	}
	b.mu.Unlock()
	if start {
		p.work.run(job{p: p, r: r})
	}
}

// writeBatch writes some blocks here and there at once: all into regions that are marked, or all with marks to be made, so that the
// disk's steps come in one order.
func (m *machine) writeBatch(v *volume) error {
	var hot []uint32
	for r := range uint32((v.spec.Size + crashRegion - 1) / crashRegion) {
		if v.active[r] != 0 && int64(r+1)*crashRegion <= v.spec.Size {
			hot = append(hot, r)
		}
	}
	anew := len(hot) == 0 || m.rnd.Chance(0.5)
	type one struct {
		c     *peer.Call
		value uint64
	}
	var list []one
	taken := map[int64]bool{}
	done := make(chan struct{}, maxBatch)
	durable := m.seq
	for range 1 + m.rnd.Intn(6) {
		reg := uint32(m.rnd.Intn(int(v.spec.Size / crashRegion)))
		if !anew {
			reg = hot[m.rnd.Intn(len(hot))]
		}
		at := int64(reg)*crashRegion/sumBlock + int64(m.rnd.Intn(crashRegion/sumBlock))
		if taken[at] {
			continue
		}
		taken[at] = true
		m.seq++
		c := peer.Command{Kind: peer.Write, Volume: v.spec.Volume, Off: at * sumBlock, Len: sumBlock, Data: make([]byte, sumBlock), Seq: v.active[reg], Durable: durable, Volatile: m.rnd.Chance(0.2)}
		if anew {
			c.Seq = m.seq
		}
		for i := 0; i < sumBlock; i += 512 {
			binary.BigEndian.PutUint64(c.Data[i:], uint64(m.seq))
		}
		for i := c.Off / 512; i < (c.Off+c.Len)/512; i++ {
			v.maybe[i] = append(v.maybe[i], uint64(m.seq))
		}
		list = append(list, one{&peer.Call{Command: c, Done: func(*peer.Call) { done <- struct{}{} }}, uint64(m.seq)})
	}
	p := m.node.pools[0]
	r := p.find(v.spec.Volume)
	m.failNow = m.failing && m.rnd.Chance(0.1)
	r.batches.hold()
	for _, x := range list {
		m.s.Submit(x.c)
	}
	r.batches.release(p, r)
	for range list {
		<-done
	}
	m.failNow = false
	var failed error
	flushed := false
	for _, x := range list {
		if failed == nil {
			failed = x.c.Err
		}
		flushed = flushed || x.c.Err == nil && !x.c.Volatile
	}
	if flushed {
		clear(v.loose)
	}
	for _, x := range list {
		if x.c.Err != nil {
			continue
		}
		c, reg := x.c.Command, uint32(x.c.Off/crashRegion)
		for i := int(c.Off / 512); i < int((c.Off+c.Len)/512); i++ {
			if c.Volatile && !flushed {
				v.loose[i] = append(append(v.loose[i], v.sectors[i]), v.maybe[i]...)
			}
			v.sectors[i], v.maybe[i] = x.value, nil
		}
		if v.absent == yes {
			v.missed[reg] = true
		}
		v.active[reg] = max(v.active[reg], c.Seq)
		v.seq = max(v.seq, c.Seq)
	}
	if failed != nil {
		if err := m.ended(failed); err != nil {
			return err
		}
		return m.open()
	}
	return nil
}
