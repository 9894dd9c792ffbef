package replica

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	cacheBlock   = sumBlock
	cacheGranule = 64 // blocks of a replica that share a shard, and a count of writes
	// cacheGroupBlocks divides cacheGranule. A block that is kept without its neighbours costs a group: 72 bytes and a map's entry.
	cacheGroupBlocks = 16
	cacheShards      = 64
	cacheStripes     = 4096
	cacheMostFill    = 1 << 20 // bytes of a read that are kept; a longer one is of somebody who reads once
	// A key is a number of a replica and a block's index in it.
	cacheIndexBits = 36
	cacheNumbers   = 1 << (64 - cacheIndexBits)
)

// cache keeps blocks that were read from this node's replicas and proved, so that a hot block costs its readers no disk. It is
// bounded, and shared by all pools. What it has of a block is what the disk has: DESIGN.md argues. All methods may be called on
// a nil cache, which has nothing.
//
// A replica is known by a number that it gets whenever it is opened: what was kept of it before is out of reach from then on,
// and makes room in time.
type cache struct {
	mem     []byte
	last    atomic.Uint64
	shards  [cacheShards]cacheShard
	stripes [cacheStripes]cacheStripe
}

// cacheShard has the blocks of some granules.
type cacheShard struct {
	mu    sync.Mutex
	index map[uint64]*cacheGroup // by keys / cacheGroupBlocks
	slots []cacheSlot            // those in use, and those that were
	limit int                    // of len(slots)
	free  []uint32               // slots that are not used
	mem   []byte                 // limit blocks
	hand  int
}

// cacheGroup has the slots of neighbouring blocks, plus 1; 0: none. One without any is not kept. A long read finds its blocks by few
// look-ups.
type cacheGroup struct {
	blocks int
	slots  [cacheGroupBlocks]uint32
}

// cacheSlot is a place for a block. One that is not used has no key in index.
type cacheSlot struct {
	key uint64
	hit bool // since the hand has passed
}

// cacheStripe counts writes of some granules: begun differs from ended while there are some.
type cacheStripe struct{ begun, ended atomic.Uint64 }

// newCache makes one of so many bytes; of less than a block for each shard it is nil. The memory is taken as it is used.
func newCache(bytes int64) (*cache, error) {
	n := int(bytes / cacheBlock / cacheShards)
	if n == 0 {
		return nil, nil
	}
	mem, err := unix.Mmap(-1, 0, n*cacheShards*cacheBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory for the cache of reads: %w", err)
	}
	c := &cache{mem: mem}
	for i := range c.shards {
		s := &c.shards[i]
		s.index, s.limit, s.mem = map[uint64]*cacheGroup{}, n, mem[i*n*cacheBlock:(i+1)*n*cacheBlock]
	}
	return c, nil
}

// close gives the memory back. Nothing may use the cache any more.
func (c *cache) close() error {
	if c == nil {
		return nil
	}
	return unix.Munmap(c.mem)
}

// number returns one for a replica that is opened, 0 if there are none left: nothing is kept of that.
func (c *cache) number() uint64 {
	if c == nil {
		return 0
	}
	if n := c.last.Add(1); n < cacheNumbers {
		return n
	}
	c.last.Store(cacheNumbers)
	return 0
}

func spread(number uint64, granule int64) uint64 {
	x := (number<<40 ^ uint64(granule)) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

func (c *cache) shard(number uint64, granule int64) *cacheShard {
	return &c.shards[spread(number, granule)>>8%cacheShards]
}

func (c *cache) stripe(number uint64, granule int64) *cacheStripe {
	return &c.stripes[spread(number, granule)>>16%cacheStripes]
}

// each calls fn for the granules of a range, with the blocks of them from first to before end.
func each(off, n int64, fn func(granule, first, end int64) bool) bool {
	first, end := off/cacheBlock, (off+n+cacheBlock-1)/cacheBlock
	for first < end {
		g := first / cacheGranule
		to := min(end, (g+1)*cacheGranule)
		if !fn(g, first, to) {
			return false
		}
		first = to
	}
	return true
}

func (c *cache) keeps(number uint64, off, n int64) bool {
	return c != nil && number != 0 && n > 0 && (off+n)/cacheBlock < 1<<cacheIndexBits
}

// get fills b with what the cache has at off, or returns false, with anything in b: it has not all of it.
func (c *cache) get(number uint64, b []byte, off int64) bool {
	if !c.keeps(number, off, int64(len(b))) {
		return false
	}
	return each(off, int64(len(b)), func(g, first, end int64) bool {
		s := c.shard(number, g)
		s.mu.Lock()
		defer s.mu.Unlock()
		var group *cacheGroup
		for i := first; i < end; i++ {
			if i == first || i%cacheGroupBlocks == 0 {
				group = s.group(number<<cacheIndexBits | uint64(i))
			}
			k, ok := group.slot(uint64(i))
			if !ok {
				return false
			}
			s.slots[k].hit = true
			from := max(off, i*cacheBlock)
			copy(b[from-off:], s.block(k)[from-i*cacheBlock:])
		}
		return true
	})
}

func (s *cacheShard) block(k uint32) []byte {
	return s.mem[int(k)*cacheBlock : (int(k)+1)*cacheBlock]
}

// writing says that a range is about to change, written that it has. Between the two nothing of it is kept, and nothing that was
// read before.
func (c *cache) writing(number uint64, off, n int64) {
	if !c.keeps(number, off, n) {
		return
	}
	each(off, n, func(g, first, end int64) bool {
		c.stripe(number, g).begun.Add(1)
		s := c.shard(number, g)
		s.mu.Lock()
		var group *cacheGroup
		for i := first; i < end; i++ {
			if i == first || i%cacheGroupBlocks == 0 {
				group = s.group(number<<cacheIndexBits | uint64(i))
			}
			if k, ok := group.slot(uint64(i)); ok {
				s.forget(number<<cacheIndexBits | uint64(i))
				s.slots[k] = cacheSlot{}
				s.free = append(s.free, k)
			}
		}
		s.mu.Unlock()
		return true
	})
}

func (c *cache) written(number uint64, off, n int64) {
	if !c.keeps(number, off, n) {
		return
	}
	each(off, n, func(g, _, _ int64) bool {
		c.stripe(number, g).ended.Add(1)
		return true
	})
}

// group has a key's block and its neighbours; nil: there are none. Called with mu.
func (s *cacheShard) group(key uint64) *cacheGroup { return s.index[key/cacheGroupBlocks] }

// slot returns where a block is, if it is kept. Called with the shard's mu.
func (g *cacheGroup) slot(key uint64) (k uint32, ok bool) {
	if g == nil || g.slots[key%cacheGroupBlocks] == 0 {
		return 0, false
	}
	return g.slots[key%cacheGroupBlocks] - 1, true
}

// forget takes a block that is kept out of the index. Called with mu.
func (s *cacheShard) forget(key uint64) {
	g := s.group(key)
	g.slots[key%cacheGroupBlocks] = 0
	if g.blocks--; g.blocks == 0 {
		delete(s.index, key/cacheGroupBlocks)
	}
}

// cacheTicket is what a read that is to be kept has seen before it began.
type cacheTicket struct {
	good  bool
	begun [cacheMostFill/cacheBlock/cacheGranule + 1]uint64 // of each granule
}

// reading is called before whole blocks are read that are to be kept.
func (c *cache) reading(number uint64, off, n int64, t *cacheTicket) {
	if !c.keeps(number, off, n) || n > cacheMostFill || off%cacheBlock != 0 || n%cacheBlock != 0 {
		return
	}
	at := 0
	t.good = each(off, n, func(g, _, _ int64) bool {
		s := c.stripe(number, g)
		ended := s.ended.Load() // first: a write that begins in between is seen
		t.begun[at] = s.begun.Load()
		at++
		return t.begun[at-1] == ended
	})
}

// keep takes what was read and proved, unless something of it has begun to change since.
func (c *cache) keep(number uint64, b []byte, off int64, t *cacheTicket) {
	if !t.good {
		return
	}
	at := 0
	each(off, int64(len(b)), func(g, first, end int64) bool {
		s := c.shard(number, g)
		s.mu.Lock()
		defer s.mu.Unlock()
		// Under the lock: a write counts itself first, and then takes away what is here.
		same := c.stripe(number, g).begun.Load() == t.begun[at]
		at++
		for i := first; i < end && same; i++ {
			s.insert(number<<cacheIndexBits|uint64(i), b[i*cacheBlock-off:][:cacheBlock])
		}
		return true
	})
}

// insert keeps a block, in the place of one that was not asked for since the hand last passed. Called with mu.
func (s *cacheShard) insert(key uint64, b []byte) {
	k, ok := s.group(key).slot(key)
	if !ok {
		k = s.place()
		g := s.group(key) // after place, which may have taken the last of its blocks
		if g == nil {
			g = &cacheGroup{}
			s.index[key/cacheGroupBlocks] = g
		}
		g.blocks++
		g.slots[key%cacheGroupBlocks] = k + 1
		s.slots[k] = cacheSlot{key: key}
	}
	copy(s.block(k), b)
}

func (s *cacheShard) place() uint32 {
	if n := len(s.free); n > 0 {
		k := s.free[n-1]
		s.free = s.free[:n-1]
		return k
	}
	if len(s.slots) < s.limit {
		s.slots = append(s.slots, cacheSlot{})
		return uint32(len(s.slots) - 1)
	}
	for {
		k := s.hand
		s.hand = (s.hand + 1) % len(s.slots)
		x := &s.slots[k] // none is free: all are used
		if !x.hit {
			s.forget(x.key)
			return uint32(k)
		}
		x.hit = false
	}
}
