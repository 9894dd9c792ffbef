package mirror

import (
	"bytes"
	"errors"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// copyKind says what a copy is for.
type copyKind uint8

const (
	reconciling copyKind = iota + 1 // a chunk of a dirty region: all targets are read, and made equal
	resyncing                       // a chunk for the joiner, compared unless the joiner was empty
	sealing                         // a block for the joiner, written whether it differs or not
)

// copier makes one chunk equal on some slots. It reads all that are to be compared, then writes where they differ.
type copier struct {
	kind     copyKind
	reg      *region // reconciling
	rs       *resync
	span     span // resyncing, sealing
	off, len int64
	targets  mask
	seq      peer.Seq // reconciling: of the region; else that of the writes, 0 before
	bufs     [maxSlots][]byte
	read     mask // bufs that were read
	bad      mask // could not be read
	doubt    mask // reconciling: they were read, and what is known of them says that they may be damaged
	lost     mask
	medium   mask // could not be written
	full     mask
	writing  bool
	reserved bool // resyncing: the joiner may have space for it
	out      int
	copied   int64
	next     *copier // in Core.waiting
}

// errAgain says that a copy has to be made again: a session was lost meanwhile.
var errAgain = errors.New("copy again")

// readCopies reads the chunk from the slots of from.
func (c *Core) readCopies(k *copier, from mask) {
	for i := range c.slots {
		if !from.has(i) {
			continue
		}
		if k.bufs[i] == nil {
			k.bufs[i] = block.Get(int(k.len))
		}
		c.copyRead(k, i)
	}
}

func (c *Core) copyRead(k *copier, i int) {
	k.out++
	pc := c.send(i, forCopy, peer.Read)
	pc.copy, pc.Off, pc.Len, pc.Data = k, k.off, k.len, k.bufs[i]
	pc.Proved = k.kind == reconciling && !k.doubt.has(i)
}

func (c *Core) copyAnswered(pc *call, o outcome) {
	k, m := pc.copy, bit(int(pc.slot))
	k.out--
	switch {
	case o == lost:
		k.lost |= m
	case o == fine && !k.writing:
		k.read |= m
	case o == fine:
		k.copied += pc.Len
	case !k.writing && pc.Proved && !c.ended: // again, for what it is worth
		k.doubt |= m
		c.copyRead(k, int(pc.slot))
	case !k.writing:
		k.bad |= m
		c.report(Notice{Code: MediumError, Node: c.slots[pc.slot].node, Off: pc.Off, Len: pc.Len, Err: pc.Err})
		if k.kind != reconciling { // which writes it anew
			c.wantMend(int(pc.slot), pc.Off, pc.Len)
		}
	case o == full:
		k.full |= m
	default:
		k.medium |= m
	}
	if k.out > 0 {
		return
	}
	switch {
	case c.ended:
		c.copyDone(k, block.ErrEnded)
	case k.kind == reconciling && k.writing:
		c.reconcileWritten(k)
	case k.kind == reconciling:
		c.reconcileRead(k)
	case k.writing:
		c.resyncWritten(k)
	default:
		c.resyncRead(k)
	}
}

// copyDone gives back what a copy used.
func (c *Core) copyDone(k *copier, err error) {
	for i := range k.bufs {
		block.Put(k.bufs[i])
		k.bufs[i] = nil
	}
	if k.kind == reconciling {
		c.chunkDone(k.reg, err)
		return
	}
	c.chunkCopied(k, err)
}

func (c *Core) reconcileRead(k *copier) {
	k.targets &= c.targets() // who left meanwhile does not matter
	if k.lost&k.targets != 0 {
		c.copyDone(k, errAgain)
		return
	}
	if c.joiner >= 0 && k.bad.has(c.joiner) && c.abortResync(peer.ErrMedium) {
		k.targets &= c.targets()
	}
	sources := k.read & k.targets & c.members
	if sources == 0 {
		if c.targets().single() {
			c.copyDone(k, errAgain) // there is nothing to compare any more
			return
		}
		c.nobodyReconciles(k)
		return
	}
	// Any member's version is right, but for damage that cannot be told from an unfinished write after a crash.
	// So a doubtful one is no source beside one that is not, even if its pool is full: then the region waits for room.
	from := sources
	if f := from &^ k.doubt; f != 0 {
		from = f
	}
	src := lowest(from)
	if f := from & k.reg.full; f != 0 {
		src = lowest(f)
	}
	if k.reg.zeros {
		c.zerosWin(k, src, from)
	}
	k.writing = true
	want := k.bufs[src]
	for i := range c.slots {
		if i != src && k.targets.has(i) {
			c.writeDiffering(k, i, want, k.bufs[i], k.read.has(i))
		}
	}
	if k.out == 0 {
		c.copyDone(k, nil)
	}
}

// zerosWin makes every block of the source zeros that is zeros on any member, and sends the source those. So whatever is
// written afterwards either frees space or overwrites what is allocated on all (16).
func (c *Core) zerosWin(k *copier, src int, sources mask) {
	step := c.compareBlock()
	want := k.bufs[src]
	was := block.Get(len(want))
	copy(was, want)
	for at := int64(0); at < k.len; at += step {
		end := min(at+step, k.len)
		for i := range c.slots {
			if sources.has(i) && allZero(k.bufs[i][at:end]) {
				clear(want[at:end])
				break
			}
		}
	}
	c.writeDiffering(k, src, want, was, true)
	block.Put(was)
}

func (c *Core) compareBlock() int64 { return max(int64(c.p.Physical), 4096) }

// writeDiffering sends a slot the blocks of want that have is not equal to, or all if have is not known.
func (c *Core) writeDiffering(k *copier, i int, want, have []byte, known bool) {
	step := int(c.compareBlock())
	differs := func(at int) bool {
		end := min(at+step, len(want))
		return !known || !bytes.Equal(want[at:end], have[at:end])
	}
	for at := 0; at < len(want); at += step {
		if !differs(at) {
			continue
		}
		from, zero := at, allZero(want[at:min(at+step, len(want))])
		for at+step < len(want) && differs(at+step) && allZero(want[at+step:min(at+2*step, len(want))]) == zero {
			at += step
		}
		c.copyWrite(k, i, int64(from), want[from:min(at+step, len(want))], zero)
	}
}

func (c *Core) copyWrite(k *copier, i int, from int64, data []byte, zero bool) {
	kind := peer.Write
	if zero {
		kind = peer.Zero
	}
	k.out++
	pc := c.send(i, forCopy, kind)
	pc.copy, pc.Off, pc.Len, pc.Seq, pc.Durable = k, k.off+from, int64(len(data)), k.seq, c.durable
	if !zero {
		pc.Data = data
	}
}

func (c *Core) reconcileWritten(k *copier) {
	joining := mask(0)
	if c.joiner >= 0 {
		joining = bit(c.joiner)
	}
	if joining&(k.medium|k.full) != 0 {
		err := peer.ErrMedium
		if joining&k.full != 0 {
			err = peer.ErrNoSpace
		}
		if c.abortResync(err) {
			joining = 0
		}
	}
	k.targets &= c.targets()
	for i := range c.slots {
		if (k.medium & k.targets).has(i) {
			c.fail(i, peer.ErrMedium)
		}
	}
	switch {
	case k.full&k.targets != 0 && k.reg.zeros:
		c.copyDone(k, block.ErrNoSpace)
	case k.full&k.targets != 0:
		k.reg.zeros = true
		k.reg.full |= k.full & c.members
		c.copyDone(k, errAgain)
	case (k.lost|k.medium)&k.targets != 0:
		c.copyDone(k, errAgain)
	default:
		c.copyDone(k, nil)
	}
}

// allZero tells whether b has only zeros.
func allZero(b []byte) bool {
	const n = len(zeros)
	for len(b) > n {
		if !bytes.Equal(b[:n], zeros[:]) {
			return false
		}
		b = b[n:]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

var zeros [4096]byte // never written
