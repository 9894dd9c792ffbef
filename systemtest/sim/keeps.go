package sim

import (
	"slices"

	"pmsapp/replication/peer"
)

// keeps is what a process has kept of a replica's bytes that were read (replica: cache.go). It dies with the process, while a replica
// does not.
type keeps struct {
	begun, underway int // writes
	blocks          map[int64][]byte
}

// keepsOf returns those of a replica.
func (st *modelStore) keepsOf(r *simReplica) *keeps {
	k := st.keeps[r]
	if k == nil {
		k = &keeps{blocks: map[int64][]byte{}}
		st.keeps[r] = k
	}
	return k
}

// kept answers a read from memory, or returns nil.
func (st *modelStore) kept(r *simReplica, c *peer.Command) []byte {
	if !c.Kept {
		return nil
	}
	k := st.keepsOf(r)
	out := make([]byte, 0, c.Len)
	for at := c.Off; at < c.Off+c.Len; at += 512 {
		b := k.blocks[at]
		if b == nil {
			return nil
		}
		out = append(out, b...)
	}
	return out
}

// keep returns what takes the bytes that are read from now on.
func (st *modelStore) keep(r *simReplica, c *peer.Command) func([]byte) {
	k := st.keepsOf(r)
	begun, quiet := k.begun, k.underway == 0
	return func(b []byte) {
		if !c.Kept || !quiet || k.begun != begun {
			return
		}
		for i := int64(0); i < int64(len(b)); i += 512 {
			k.blocks[c.Off+i] = slices.Clone(b[i:min(i+512, int64(len(b)))])
		}
	}
}

// changes says that a range is about to change, and returns what says that it has.
func (st *modelStore) changes(r *simReplica, c *peer.Command) func() {
	k := st.keepsOf(r)
	k.begun++
	k.underway++
	if !st.n.c.breaks(BreakKept) {
		for at := c.Off; at < c.Off+c.Len; at += 512 {
			delete(k.blocks, at)
		}
	}
	return func() { k.underway-- }
}
