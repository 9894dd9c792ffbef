package replica

import (
	"slices"
	"sync"

	"pmsapp/replication/peer"
)

const (
	// maxBatch is how many writes are carried out together, maxBatched how long each may be, in bytes.
	maxBatch   = 64
	maxBatched = 64 << 10
	// batchRunners is how many batches of a replica are under way at a time: while one is flushed the next one's bytes go to the disk,
	// and what comes meanwhile waits for being many.
	batchRunners = 2
)

// batcher collects small writes of a replica, so that many share the way to the disk as they share the flush (DESIGN.md, "Writes in
// batches").
type batcher struct {
	mu      sync.Mutex // guards what follows
	waiting []job
	runners int
	spare   []*batch
}

// batch is writes that are carried out together.
type batch struct {
	jobs   []job
	errs   []error     // of the jobs
	writes []fileWrite // what the file is given
}

func (x *batch) add(j job, err error) { x.jobs, x.errs = append(x.jobs, j), append(x.errs, err) }

// batchable tells whether a command may wait for others like it: a small write of whole blocks.
func (r *replica) batchable(c *peer.Call, p *pool) bool {
	return c.Kind == peer.Write && r.batched.Load() && !p.queues.refused.Load() && c.Len <= maxBatched && (c.Off|c.Len)%sumBlock == 0
}

// add takes a job in.
func (b *batcher) add(j job) {
	b.mu.Lock()
	b.waiting = append(b.waiting, j)
	start := b.runners < batchRunners
	if start {
		b.runners++
	}
	b.mu.Unlock()
	if start {
		j.p.work.run(job{p: j.p, r: j.r})
	}
}

// next takes what waits, or tells that there is nothing, and one runner less.
func (b *batcher) next() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.runners--
		return nil
	}
	x := b.get()
	n := min(len(b.waiting), maxBatch)
	for _, j := range b.waiting[:n] {
		x.add(j, nil)
	}
	b.waiting = slices.Delete(b.waiting, 0, n)
	return x
}

// empty finds or makes an empty batch.
func (b *batcher) empty() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get()
}

// get is called with mu.
func (b *batcher) get() *batch {
	if n := len(b.spare); n > 0 {
		x := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return x
	}
	return &batch{}
}

func (b *batcher) put(x *batch) {
	clear(x.jobs)
	clear(x.errs)
	clear(x.writes)
	*x = batch{jobs: x.jobs[:0], errs: x.errs[:0], writes: x.writes[:0]}
	b.mu.Lock()
	b.spare = append(b.spare, x)
	b.mu.Unlock()
}

// runBatches carries out what waits, until nothing does, or others want the worker.
func (r *replica) runBatches(p *pool) {
	for x := r.batches.next(); x != nil; x = r.batches.next() {
		r.runBatch(p, x)
		if p.work.crowded() {
			p.work.run(job{p: p, r: r})
			return
		}
	}
}

// runBatch carries a batch out, each step of change for all of it, and answers.
func (r *replica) runBatch(p *pool, x *batch) {
	if r.state() != nil && r.renew(true) {
		x.jobs[0].s.node.renewed()
	}
	plain, marked := r.batches.empty(), r.batches.empty()
	r.use.RLock()
	for i, j := range x.jobs {
		x.errs[i] = j.s.Err()
		if x.errs[i] == nil {
			x.errs[i] = r.usable(j.c, j.s)
		}
		if x.errs[i] == nil {
			x.errs[i] = r.valid(j.c)
		}
	}
	r.mu.Lock()
	for i, j := range x.jobs {
		switch {
		case x.errs[i] != nil:
		case r.begin(j.c):
			marked.add(j, nil)
		default:
			plain.add(j, nil)
		}
	}
	r.mu.Unlock()
	// What waits for no mark goes first. What does is another's, unless somebody waits to have the replica alone, or no worker is free:
	// it would wait, with use, behind commands that wait for who waits for use.
	if len(marked.jobs) > 0 && len(plain.jobs) > 0 && r.use.TryRLock() {
		if p.work.tryRun(job{p: p, r: r, marked: marked}) {
			marked = nil
		} else {
			r.use.RUnlock()
		}
	}
	r.carry(p, plain, false)
	if marked != nil {
		r.carry(p, marked, true)
	}
	r.use.RUnlock()
	for i, j := range x.jobs {
		if x.errs[i] != nil {
			j.end(x.errs[i])
		}
	}
	r.batches.put(x)
	r.batches.end(plain)
	if marked != nil {
		r.batches.end(marked)
	}
}

// runMarked carries out the writes of a batch that need a mark. It has use shared from who has made it.
func (r *replica) runMarked(p *pool, x *batch) {
	r.carry(p, x, true)
	r.use.RUnlock()
	r.batches.end(x)
}

// end answers.
func (b *batcher) end(x *batch) {
	for i, j := range x.jobs {
		j.end(x.errs[i])
	}
	b.put(x)
}

// carry applies writes that have begun, and flushes (invariant 12).
func (r *replica) carry(p *pool, x *batch, marked bool) {
	if len(x.jobs) == 0 {
		return
	}
	var err error
	if marked {
		err = r.commit.do()
	}
	durable := false
	if err == nil {
		durable = r.writeAll(p, x)
	}
	if durable {
		err = r.flush.do()
	}
	r.mu.Lock()
	for i, j := range x.jobs {
		r.finish(j.c)
		if err != nil && x.errs[i] == nil && (marked || !j.c.Volatile) {
			x.errs[i] = brokenError(err)
		}
	}
	r.mu.Unlock()
}

// writeAll gives a batch to the disk, and says so in the sums, as write does. It returns whether something is to be flushed.
func (r *replica) writeAll(p *pool, x *batch) (durable bool) {
	for _, j := range x.jobs {
		r.cache.writing(r.number, j.c.Off, j.c.Len)
		x.writes = append(x.writes, fileWrite{off: j.c.Off, data: j.c.Data})
	}
	if many, ok := r.data.(manyWriter); ok {
		many.writeMany(&p.queues, x.writes)
	} else {
		for i := range x.writes {
			x.writes[i].err = r.data.writeAt(x.writes[i].data, x.writes[i].off)
		}
	}
	for i, j := range x.jobs {
		r.cache.written(r.number, j.c.Off, j.c.Len)
		if err := x.writes[i].err; err != nil {
			r.sums.fill(j.c.Off/sumBlock, j.c.Len/sumBlock, unknownSum)
			x.errs[i] = diskError("writing", err)
			continue
		}
		r.sums.put(j.c.Off/sumBlock, j.c.Data)
		durable = durable || !j.c.Volatile
	}
	return durable
}
