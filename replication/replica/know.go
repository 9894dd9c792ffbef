package replica

import (
	"encoding/binary"
	"fmt"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// makeMap makes the map of a new replica, durable but for its name: all regions clean, and nothing known of others.
func makeMap(d disk, path string, spec peer.Spec) error {
	if err := d.create(path, mapSize(spec), true); err != nil {
		return err
	}
	f, err := d.open(path, blockSize)
	if err != nil {
		return err
	}
	o := othersRecord{count: 1, birth: ids.New()}
	err = f.writeAt(o.encode(), mapBlocks(spec)+blockSize)
	if err == nil {
		err = f.flush()
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return err
}

// oldMap tells whether the map is of the version without missed maps: its blocks had other regions.
func (r *replica) oldMap() error {
	n, err := r.mapf.size()
	if err != nil {
		return err
	}
	b := make([]byte, blockSize)
	for at := int64(0); at+blockSize <= n; at += blockSize {
		if err := r.mapf.readAt(b, at); err != nil {
			return err
		}
		if v := binary.BigEndian.Uint32(b[8:]); string(b[:8]) == magicMap && v != mapVersion {
			return fmt.Errorf("%w: %q has version %d, and this program knows %d", ErrVersion, magicMap[:7], v, mapVersion)
		}
	}
	return nil
}

// loadOthers reads the record of the others; one that was damaged is replaced.
func (r *replica) loadOthers(spec peer.Spec) (othersRecord, error) {
	var slots [2][]byte
	for i := range slots {
		slots[i] = make([]byte, blockSize)
		if err := r.mapf.readAt(slots[i], mapBlocks(spec)+int64(i)*blockSize); err != nil {
			return othersRecord{}, err
		}
	}
	o, lost, err := readOthers(slots)
	if err != nil || !lost {
		return o, err
	}
	for range slots { // both: nothing is to be left of the damaged one
		o.count++
		if err := r.mapf.writeAt(o.encode(), mapBlocks(spec)+int64(o.count%2)*blockSize); err != nil {
			return o, err
		}
	}
	return o, r.mapf.flush()
}

// know carries Know out. Only the record is written: what is dropped first, for the blocks of the map must have its bits
// until then, and what is begun last, for they must have its bits from then on.
func (r *replica) know(list []peer.Other) error {
	r.knowing.Lock()
	defer r.knowing.Unlock()
	without, with, err := r.others.change(list, func() uint64 {
		id := ids.New() // never that of an attempt of which blocks were written, and no record
		return binary.BigEndian.Uint64(id[:]) | 1
	})
	if err != nil {
		return err
	}
	if !slices.Equal(without, r.others.others) {
		was := r.others.others
		if err := r.writeOthers(without); err != nil {
			return err
		}
		r.mu.Lock()
		for _, e := range was {
			if e.Absent && !slices.ContainsFunc(without, func(x otherEntry) bool { return x.gen == e.gen }) {
				r.marks.endMissed(e.slot)
			}
		}
		r.mu.Unlock()
	}
	if slices.Equal(with, without) {
		return nil
	}
	r.mu.Lock()
	for _, e := range with {
		if e.Absent && r.marks.maps[e.slot].gen != e.gen {
			r.marks.beginMissed(e.slot, missedMap{e.gen, e.All})
		}
	}
	r.mu.Unlock()
	return r.writeOthers(with)
}

// writeOthers makes the record durable. Called with knowing.
func (r *replica) writeOthers(list []otherEntry) error {
	if err := r.state(); err != nil {
		return brokenError(err)
	}
	o := othersRecord{count: r.others.count + 1, birth: r.others.birth, others: list}
	err := r.mapf.writeAt(o.encode(), mapBlocks(r.spec)+int64(o.count%2)*blockSize)
	if err == nil {
		err = r.mapf.flush()
	}
	if err != nil {
		err = fmt.Errorf("writing what %s knows of others: %w", r.spec.Volume, err)
		r.fail(err)
		return brokenError(err)
	}
	r.mu.Lock()
	r.others = o
	r.mu.Unlock()
	return nil
}

// mapOf finds the missed map that a command names. Called with mu.
func (r *replica) mapOf(c *peer.Call) (*otherEntry, error) {
	if len(c.Others) == 1 {
		if e := r.others.find(c.Others[0].ID.Birth); e != nil && e.Absent {
			return e, nil
		}
	}
	return nil, fmt.Errorf("no missed map of that replica: %w", peer.ErrInvalid)
}

func (r *replica) readMissed(c *peer.Call) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := -1
	if len(c.Others) != 1 || !c.Others[0].ID.Birth.IsZero() {
		e, err := r.mapOf(c)
		if err != nil {
			return err
		}
		k = e.slot
	}
	c.Extents = r.marks.missed(k, uint32(c.Off/r.spec.Region), uint32((c.Off+c.Len-1)/r.spec.Region), r.spec)
	if n := len(c.Extents) - 1; n >= 0 { // the volume may end within a region of a replica that is larger
		c.Extents[n].Len = min(c.Extents[n].Len, c.Off+c.Len-c.Extents[n].Off)
	}
	return nil
}

// changeMissed carries AddMissed and DropMissed out.
func (r *replica) changeMissed(c *peer.Call) error {
	for _, x := range c.Missed {
		if _, _, err := regionsIn(x, r.spec); err != nil {
			return err
		}
	}
	r.knowing.Lock()
	defer r.knowing.Unlock()
	e, err := r.mapOf(c)
	if err != nil {
		return err
	}
	if to := c.Others[0]; c.Kind == peer.DropMissed && (to.Epoch > e.Epoch || to.Seq > e.Seq) {
		next := slices.Clone(r.others.others)
		for i := range next {
			if next[i].gen == e.gen {
				next[i].Epoch, next[i].Seq = max(e.Epoch, to.Epoch), max(e.Seq, to.Seq)
			}
		}
		if err := r.writeOthers(next); err != nil {
			return err
		}
	}
	r.mu.Lock()
	for _, x := range c.Missed {
		first, last, _ := regionsIn(x, r.spec)
		if c.Kind == peer.AddMissed {
			r.marks.addMissed(e.slot, first, last)
		} else {
			r.marks.dropMissed(e.slot, first, last)
		}
	}
	changed := len(r.marks.changed) > 0
	r.mu.Unlock()
	if !changed {
		return nil
	}
	if err := r.commit.do(); err != nil {
		return brokenError(err)
	}
	return nil
}
