package mirror

import (
	"time"

	"pmsapp/replication/peer"
)

// user says whose call it is.
type user uint8

const (
	forPart user = iota + 1
	forCopy
	forConfirm
	forClear
	forMap
	forExtents
	forMend
	forScrub
	forKnow
	forMissed
	forDrop
	forReserve
)

// call is a peer.Call with what Core has to know at its answer. Owner points back to it.
type call struct {
	peer.Call
	slot  uint8
	user  user
	owned bool          // Data is a copy of the client's
	gen   uint32        // of the slot's session when it was sent
	at    time.Duration // a part's write: when it was sent
	part  *part
	copy  *copier
	mend  *mend
	scrub *scrub
	rs    *resync
	win   *window
	next  *call
}

// pools are free lists: what is used again is not allocated.
type pools struct {
	calls    *call
	requests *request
	parts    *part
	regions  *region
}

// send makes a call to a slot and emits it. The caller fills in the command after, through the pointer.
func (c *Core) send(i int, u user, kind peer.Kind) *call {
	k := c.free.calls
	if k == nil {
		k = new(call)
		k.Owner = k
	} else {
		c.free.calls = k.next
		k.next = nil
	}
	s := &c.slots[i]
	k.slot, k.user, k.gen = uint8(i), u, s.gen
	k.Kind, k.Volume = kind, c.p.Volume.ID
	s.out++
	c.calls++
	c.emit(Effect{Kind: Send, Node: s.node, Call: &k.Call})
	return k
}

func (c *Core) freeCall(k *call) {
	k.Command, k.Answer = peer.Command{}, peer.Answer{}
	k.part, k.copy, k.mend, k.scrub, k.rs, k.owned = nil, nil, nil, nil, nil, false
	k.next = c.free.calls
	c.free.calls = k
}

// mask is a set of slots.
type mask uint8

func bit(i int) mask          { return 1 << i }
func (m mask) has(i int) bool { return m&(1<<i) != 0 }
func (m mask) single() bool   { return m != 0 && m&(m-1) == 0 }
