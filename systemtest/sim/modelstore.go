package sim

import (
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/peer/model"
)

// simPool is a pool on a disk.
type simPool struct {
	id       ids.Pool
	accepted []peer.EpochRange
	written  written
	replicas map[ids.Volume]*simReplica
	running  int
	hang     time.Duration
	full     bool
	bad      float64 // the chance of an I/O to fail
	snapshot *simPool
	reverted bool // it may hold what was deleted since
}

// written is how often the catalog of an identity had been written when a pool recorded its epoch (9).
type written struct {
	id    ids.Node
	count uint64
}

// clone is a snapshot of what is durable.
func (p *simPool) clone(vols []ids.Volume) *simPool {
	c := &simPool{id: p.id, accepted: slices.Clone(p.accepted), written: p.written, replicas: map[ids.Volume]*simReplica{}}
	for _, v := range vols {
		if r := p.replicas[v]; r != nil {
			c.replicas[v] = &simReplica{spec: r.spec, data: r.data.Clone(), marks: maps.Clone(r.marks), seq: r.seq, durable: r.durable,
				writing: map[uint32]int{}, flips: newFlips(), rec: r.rec.Clone()}
			for b, f := range r.flips.blocks {
				x := *f
				c.replicas[v].flips.blocks[b] = &x
			}
			c.replicas[v].reloaded()
		}
	}
	return c
}

type simReplica struct {
	spec         peer.Spec
	data         *simworld.File
	marks        map[uint32]peer.Seq
	seq, durable peer.Seq
	writing      map[uint32]int
	flips        flips
	cache
	rec *model.Records
}

func regionsOf(s peer.Spec) uint32 { return uint32((s.Size + s.Region - 1) / s.Region) }

func (p *simPool) epoch() peer.Epoch {
	if len(p.accepted) == 0 {
		return 0
	}
	return p.accepted[len(p.accepted)-1].Hi
}

type modelStore struct {
	n        *node
	sessions []*storeSession
	keeps    map[*simReplica]*keeps
}

type storeSession struct {
	st    *modelStore
	end   *simworld.End
	epoch peer.Epoch
	up    bool
	over  bool
	run   map[*simPool]int
	known map[ids.Volume]ids.ID // the incarnations that its commands are for
}

func (st *modelStore) epoch() peer.Epoch {
	e := st.n.epoch
	for _, p := range st.n.pools {
		e = max(e, p.epoch())
	}
	return e
}

func (st *modelStore) accept(end *simworld.End) {
	s := &storeSession{st: st, end: end, run: map[*simPool]int{}, known: map[ids.Volume]ids.ID{}}
	end.Recv = s.recv
	end.Closed = func() { s.over = true }
}

func (s *storeSession) recv(m any) {
	st := s.st
	if !s.up {
		if f, ok := m.(msgFence); ok {
			s.fence(f.epoch)
		}
		return
	}
	switch m := m.(type) {
	case msgNoop:
		s.end.Send(msgNoopBack{})
	case msgPoll:
		if s.over || st.epoch() > s.epoch {
			s.end.Send(msgPolled{m.tag, peer.Fenced{}, peer.ErrEpoch})
			return
		}
		s.end.Send(msgPolled{m.tag, st.fenced(s, st.epoch()), nil})
	case msgCommand:
		s.command(m)
	}
}

func (s *storeSession) fence(e peer.Epoch) {
	st := s.st
	if e < st.epoch() {
		s.end.Send(msgRefused{&peer.EpochError{Accepted: st.epoch()}})
		return
	}
	highest := st.epoch()
	prev := map[ids.Pool][]peer.EpochRange{}
	if e > st.n.epoch {
		st.n.epoch, st.n.recorded = e, map[ids.Pool]bool{}
	}
	for _, p := range st.n.pools {
		prev[p.id] = p.accepted
		if !st.n.recorded[p.id] {
			p.accepted = peer.Accept(p.accepted, e)
			p.written = written{st.n.id(), st.n.disk.written}
			st.n.recorded[p.id] = true
		}
	}
	s.epoch = e
	for _, o := range st.sessions {
		if !st.n.c.breaks(BreakFenceOpen) {
			o.over = true
			o.end.Close()
		}
	}
	tries := 0
	var wait func()
	wait = func() {
		if st.epoch() > e {
			s.end.Send(msgRefused{&peer.EpochError{Accepted: st.epoch()}})
			return
		}
		if tries++; tries < 20 && st.busy(s) {
			st.n.proc.After(10*time.Millisecond, wait)
			return
		}
		s.up = true
		st.sessions = append(st.sessions, s)
		f := st.fenced(s, highest)
		for i := range f.Pools {
			f.Pools[i].Accepted = prev[f.Pools[i].Pool]
			if a := f.Pools[i].Accepted; len(a) > 0 {
				f.Pools[i].Previous = a[len(a)-1].Hi
			}
		}
		s.end.Send(msgFenced{f})
	}
	st.n.proc.After(200*time.Microsecond, wait)
}

func (st *modelStore) busyPool(s *storeSession, p *simPool) bool {
	return p.running > s.run[p] && !st.n.c.breaks(BreakFenceBusy)
}
func (st *modelStore) busy(s *storeSession) bool {
	return slices.ContainsFunc(st.n.pools, func(p *simPool) bool { return st.busyPool(s, p) })
}

func (st *modelStore) fenced(s *storeSession, highest peer.Epoch) peer.Fenced {
	f := peer.Fenced{Highest: highest}
	for _, p := range st.n.pools {
		fp := peer.FencedPool{Pool: p.id, Busy: st.busyPool(s, p), Previous: p.epoch(), Accepted: p.accepted,
			Reverted: !peer.Has(p.accepted, s.epoch)}
		for _, v := range st.n.c.volIDs {
			if r := p.replicas[v]; r != nil {
				fp.Replicas = append(fp.Replicas, peer.FencedReplica{Spec: r.spec, Seq: r.seq, Durable: r.durable, Active: len(r.marks), Incarnation: st.n.breakIncarnation(r)})
				if s.known[v].IsZero() {
					s.known[v] = r.inc
				}
			}
		}
		f.Pools = append(f.Pools, fp)
	}
	return f
}

func (s *storeSession) command(m msgCommand) {
	st, c := s.st, m.c
	if c.Kind == peer.Write && s.spoiled(&c.Data) {
		s.over = true
		s.end.Reset()
		return
	}
	answer := func(a peer.Answer, data []byte) { s.end.Send(msgAnswer{m.tag, a, data}) }
	if (s.over || st.epoch() > s.epoch) && !st.n.c.breaks(BreakFenceOpen) {
		answer(peer.Answer{Err: peer.ErrEpoch}, nil)
		return
	}
	if c.Kind == peer.Confirm {
		answer(peer.Answer{}, nil)
		return
	}
	var pool *simPool
	for _, p := range st.n.pools {
		if p.replicas[c.Volume] != nil || (c.Kind == peer.Create || c.Kind == peer.Reset) && p.id == c.Spec.Pool {
			pool = p
		}
	}
	if pool == nil {
		if c.Kind == peer.Delete {
			answer(peer.Answer{}, nil)
		} else {
			answer(peer.Answer{Err: peer.ErrNoReplica}, nil)
		}
		return
	}
	if !s.means(pool.replicas[c.Volume], &c) {
		answer(peer.Answer{Err: peer.ErrNoReplica}, nil)
		return
	}
	pool.running++
	s.run[pool]++
	delay := st.n.c.w.Rand.Long(200*time.Microsecond, 10*time.Millisecond, 0.02) + pool.hang
	step := func(fn func()) { st.n.proc.After(delay, fn) }
	end := func(a peer.Answer, data []byte) {
		pool.running--
		s.run[pool]--
		answer(a, data)
	}
	r := pool.replicas[c.Volume]
	switch c.Kind {
	case peer.Read:
		if b := st.kept(r, &c); b != nil {
			end(peer.Answer{}, b)
			return
		}
		keep := st.keep(r, &c)
		step(func() {
			if st.n.c.w.Rand.Chance(pool.bad) || r.refuses(st.n.c, c.Off, c.Len, c.Proved) {
				end(peer.Answer{Err: peer.ErrMedium}, nil)
				return
			}
			b := slices.Clone(r.data.Read(c.Off, c.Len))
			keep(b)
			end(peer.Answer{}, b)
		})
	case peer.Sums:
		step(func() {
			if st.n.c.w.Rand.Chance(pool.bad) || r.refuses(st.n.c, c.Off, c.Len, false) {
				end(peer.Answer{Err: peer.ErrMedium}, nil)
				return
			}
			var a peer.Answer
			for at := c.Off; at < c.Off+c.Len; at += 4096 {
				a.Sums = append(a.Sums, crc32.ChecksumIEEE(r.data.Read(at, min(4096, c.Off+c.Len-at))))
			}
			end(a, nil)
		})
	case peer.Write, peer.Zero:
		first, last := uint32(c.Off/r.spec.Region), uint32((c.Off+c.Len-1)/r.spec.Region)
		clean := false
		for g := first; g <= last; g++ {
			r.writing[g]++
			clean = clean || r.marks[g] < c.Seq
		}
		apply := func() {
			if pool.full && st.n.c.w.Rand.Chance(0.7) {
				for g := first; g <= last; g++ {
					r.writing[g]--
				}
				if st.n.c.breaks(BreakFull) {
					end(peer.Answer{}, nil)
				} else {
					end(peer.Answer{Err: peer.ErrNoSpace}, nil)
				}
				return
			}
			changed := st.changes(r, &c)
			end := func(a peer.Answer, data []byte) {
				changed()
				end(a, data)
			}
			if c.Kind == peer.Write {
				r.data.Write(c.Off, c.Data)
			} else if !st.n.c.breaks(BreakZero) || st.n.host != 0 {
				r.data.Zero(c.Off, c.Len)
			}
			if c.Volatile {
				r.volatile = true
				r.written(c.Off, c.Len, true)
				for g := first; g <= last; g++ {
					r.writing[g]--
				}
				end(peer.Answer{}, nil)
				return
			}
			inc, earlier, fl := r.inc, slices.Clone(st.n.flushes), r.data.FlushRange(c.Off, c.Len)
			st.n.flushes = append(st.n.flushes, fl)
			var done func()
			done = func() {
				if r.volatile && st.n.under(r, earlier) {
					step(done)
					return
				}
				st.n.flushes = slices.DeleteFunc(st.n.flushes, func(x *simworld.Flush) bool { return x == fl })
				if bad := st.n.c.w.Rand.Chance(pool.bad) || r.inc != inc; bad && st.n.c.breaks(BreakFlush) {
					fl.Failed(st.n.c.w.Rand)
					fl = r.data.FlushRange(c.Off, c.Len)
				} else if bad {
					fl.Failed(st.n.c.w.Rand)
					r.data.Reload(c.Off, c.Len)
					st.n.lose(r)
					for g := first; g <= last; g++ {
						r.writing[g]--
					}
					end(peer.Answer{Err: peer.ErrMedium}, nil)
					return
				}
				fl.Done()
				r.written(c.Off, c.Len, false)
				for g := first; g <= last; g++ {
					r.writing[g]--
				}
				end(peer.Answer{}, nil)
			}
			step(done)
		}
		if !clean {
			step(apply)
			return
		}
		step(func() {
			for g := first; g <= last; g++ {
				r.marks[g] = max(r.marks[g], c.Seq)
				if !st.n.c.breaks(BreakMissed) {
					r.rec.Marked(g)
				}
			}
			r.seq, r.durable = max(r.seq, c.Seq), max(r.durable, c.Durable)
			step(apply)
		})
	case peer.Reserve:
		step(func() {
			if st.n.c.breaks(BreakReserve) {
				r.data.Zero(c.Off, c.Len)
			}
			end(peer.Answer{}, nil)
		})
	case peer.Flush:
		step(func() { st.n.flush(pool, r, step, end) })
	case peer.Clear:
		clear := func() {
			for _, g := range c.Regions {
				if at, ok := r.marks[g.Region]; ok && (at <= g.Seq && r.writing[g.Region] == 0 || st.n.c.breaks(BreakClear)) {
					delete(r.marks, g.Region)
					r.durable = max(r.durable, c.Durable)
					r.cleaned(g.Region)
					st.n.breakMissedClear(r, g.Region)
				}
			}
			end(peer.Answer{}, nil)
		}
		if st.n.c.breaks(BreakClear) { // it is late, too, so that writes overtake it
			step(func() { step(func() { step(clear) }) })
			return
		}
		step(clear)
	case peer.ReadMap:
		tell := func() {
			a := peer.Answer{Incarnation: st.n.breakIncarnation(r), Birth: r.rec.Birth, Highest: r.seq, Known: r.rec.Others()}
			for _, g := range slices.Sorted(maps.Keys(r.marks)) {
				a.Active = append(a.Active, peer.RegionSeq{Region: g, Seq: r.marks[g]})
			}
			end(st.n.breakReadMap(r, a), nil)
		}
		step(func() {
			if !r.volatile {
				tell()
				return
			}
			st.n.flush(pool, r, step, func(a peer.Answer, _ []byte) {
				if a.Err != nil {
					end(a, nil)
					return
				}
				tell()
			})
		})
	case peer.Know, peer.ReadMissed, peer.AddMissed, peer.DropMissed:
		step(func() { end(st.n.missed(r, &c), nil) })
	case peer.Extents:
		step(func() {
			var a peer.Answer
			if st.n.c.breaks(BreakCopy) {
				c.Len -= c.Len / 4
			}
			r.data.Extents(c.Off, c.Len, func(off, n int64) { a.Extents = append(a.Extents, peer.Extent{Off: off, Len: n}) })
			end(a, nil)
		})
	case peer.Create, peer.Reset:
		step(func() {
			if r == nil || c.Kind == peer.Reset {
				pool.replicas[c.Volume] = &simReplica{spec: c.Spec, data: simworld.NewFile(c.Spec.Size), marks: map[uint32]peer.Seq{}, writing: map[uint32]int{}, flips: newFlips(),
					rec: model.New(st.n.c.w.Rand.ID(), regionsOf(c.Spec))}
				st.n.c.renew(pool.replicas[c.Volume])
				if st.n.c.breaks(BreakCreate) {
					fillBlock(pool.replicas[c.Volume].data.Read(0, blockSize), 0, 7)
				}
			}
			end(peer.Answer{}, nil)
		})
	case peer.Grow:
		step(func() {
			if r != nil && r.spec.Lineage != c.Spec.Lineage {
				end(peer.Answer{Err: peer.ErrInvalid}, nil)
				return
			}
			if r != nil && r.spec.Size < c.Spec.Size {
				r.data.Grow(c.Spec.Size)
				r.spec.Size = c.Spec.Size
				r.rec.Grown(regionsOf(r.spec))
			}
			end(peer.Answer{}, nil)
		})
	case peer.Delete:
		step(func() {
			delete(pool.replicas, c.Volume)
			end(peer.Answer{}, nil)
		})
	}
}

func (s *storeSession) spoiled(data *[]byte) bool {
	return (&session{n: s.st.n}).spoiled(data)
}

// breakDisks loses what BreakFenceForgets and BreakMarks have not made durable.
func (n *node) breakDisks(power bool) {
	for _, p := range n.pools {
		if a := p.accepted; n.c.breaks(BreakFenceForgets) && len(a) > 0 {
			a = slices.Clone(a)
			a[len(a)-1].Hi--
			if a[len(a)-1].Hi < a[len(a)-1].Lo {
				a = a[:len(a)-1]
			}
			p.accepted = a
			n.epoch = 0
			n.recorded = nil
		}
		if n.c.breaks(BreakMarks) && power {
			for _, r := range p.replicas {
				clear(r.marks)
			}
		}
	}
}
