package replica

import (
	"fmt"

	"pmsapp/replication/peer"
)

// execute carries a command of a session out; it blocks.
func (r *replica) execute(c *peer.Call, s *Session) error {
	if r.state() != nil && r.renew(true) {
		s.node.renewed()
	}
	r.use.RLock()
	defer r.use.RUnlock()
	if err := r.usable(c, s); err != nil {
		return err
	}
	switch c.Kind {
	case peer.Flush:
		return r.sync()
	case peer.Clear:
		return r.clean(c.Regions, c.Durable)
	case peer.ReadMap:
		if err := r.settleMemory(); err != nil {
			return err
		}
		r.mu.Lock()
		c.Active = r.marks.list()
		c.Incarnation = r.incarnation
		c.Birth, c.Known = r.others.birth, r.others.list()
		c.Highest, _ = r.marks.highest()
		r.mu.Unlock()
		return nil
	case peer.Know:
		return r.know(c.Others)
	case peer.AddMissed, peer.DropMissed:
		return r.changeMissed(c)
	}
	if err := r.valid(c); err != nil {
		return err
	}
	switch c.Kind {
	case peer.ReadMissed:
		return r.readMissed(c)
	case peer.Read:
		if c.Kept {
			return diskError("reading", r.readKept(c.Data, c.Off))
		}
		return diskError("reading", r.read(c.Data, c.Off, c.Proved))
	case peer.Sums:
		return r.sumUp(c)
	case peer.Extents:
		var err error
		c.Extents, err = r.extents(c.Off, c.Off+c.Len)
		return diskError("looking for data", err)
	case peer.Write, peer.Zero:
		return r.change(c)
	case peer.Reserve:
		return diskError("reserving", r.data.reserve(c.Off, c.Len))
	}
	return fmt.Errorf("command %d: %w", c.Kind, peer.ErrInvalid)
}

// usable tells why a session's command cannot be carried out. Called with use, shared.
func (r *replica) usable(c *peer.Call, s *Session) error {
	if r.gone || r.foreign != nil {
		return fmt.Errorf("volume %s: %w", c.Volume, peer.ErrNoReplica)
	}
	if err := r.state(); err != nil {
		return brokenError(err)
	}
	if !s.means(c, r.incarnation) {
		return fmt.Errorf("volume %s: what was written to it before it was durable may be lost: %w", c.Volume, peer.ErrNoReplica)
	}
	return nil
}

// valid checks the range of a command that has one, and what a write must have. Called with use, shared.
func (r *replica) valid(c *peer.Call) error {
	if c.Off < 0 || c.Len <= 0 || c.Off%512 != 0 || c.Len%512 != 0 || c.Off > r.spec.Size || c.Len > r.spec.Size-c.Off {
		return fmt.Errorf("%d bytes at %d of %d: %w", c.Len, c.Off, r.spec.Size, peer.ErrInvalid)
	}
	if (c.Kind == peer.Read || c.Kind == peer.Write) && int64(len(c.Data)) != c.Len {
		return fmt.Errorf("%d bytes of data for %d: %w", len(c.Data), c.Len, peer.ErrInvalid)
	}
	if (c.Kind == peer.Write || c.Kind == peer.Zero) && c.Seq == 0 {
		return fmt.Errorf("a write without a Seq: %w", peer.ErrInvalid)
	}
	return nil
}

// regions are those that a write touches.
func (r *replica) regions(c *peer.Call) (first, last uint32) {
	return uint32(c.Off / r.spec.Region), uint32((c.Off + c.Len - 1) / r.spec.Region)
}

// begin says that a write is about to happen, and returns whether its mark must be made durable first. Called with mu.
func (r *replica) begin(c *peer.Call) (mark bool) {
	first, last := r.regions(c)
	mark = r.marks.begin(first, last, c.Seq, c.Durable)
	if c.Volatile {
		r.volatile = true
		r.taken++
		r.taking++
	}
	for x := first; x <= last && len(r.clearing) > 0; x++ {
		delete(r.clearing, x)
	}
	return mark
}

// finish says that a write that has begun is over. Called with mu.
func (r *replica) finish(c *peer.Call) {
	r.marks.end(r.regions(c))
	if c.Volatile {
		r.taking--
	}
}

// change marks, applies and flushes (invariant 12).
func (r *replica) change(c *peer.Call) error {
	r.mu.Lock()
	mark := r.begin(c)
	r.mu.Unlock()
	err := r.apply(c, mark)
	r.mu.Lock()
	r.finish(c)
	r.mu.Unlock()
	return err
}

func (r *replica) apply(c *peer.Call, mark bool) error {
	if mark {
		if err := r.commit.do(); err != nil {
			return brokenError(err)
		}
	}
	data := c.Data
	if c.Kind == peer.Zero {
		data = nil
	}
	if err := r.write(c.Off, c.Len, data); err != nil {
		return diskError("writing", err)
	}
	if c.Volatile {
		return nil // r.volatile was set before a byte was written
	}
	return r.sync()
}

// settleMemory makes durable what a former leader may have left in memory: a new one finds it equal to what others have.
func (r *replica) settleMemory() error {
	r.mu.Lock()
	volatile := r.volatile
	r.mu.Unlock()
	if !volatile {
		return nil
	}
	return r.sync()
}

// sync makes all writes durable that have returned.
func (r *replica) sync() error {
	if err := r.flush.do(); err != nil {
		return brokenError(err)
	}
	return nil
}

// clean makes regions clean: first what is known of their blocks is durable, then that they are clean (invariant 16).
func (r *replica) clean(list []peer.RegionSeq, durable peer.Seq) error {
	settled, id, err := r.settle(list)
	r.mu.Lock()
	flush := r.marks.clear(r.settled(settled, id), durable)
	r.mu.Unlock()
	if err != nil {
		return brokenError(err)
	}
	if !flush {
		return nil
	}
	if err := r.commit.do(); err != nil {
		return brokenError(err)
	}
	return nil
}

// brokenError is a flush that failed, or a map that cannot be written. It is never a full pool, whatever the disk says: a pool
// is full before a write is applied, not after.
func brokenError(err error) error { return fmt.Errorf("%w: %w", peer.ErrMedium, err) }
