package sim

import (
	"slices"
	"time"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// deleteVolume asks the leader of the moment to delete the second volume, until it is gone: for good, or to the trash.
func (c *Cluster) deleteVolume() {
	if c.trueVolume(1) == nil {
		if _, kept := c.trashed(); kept && c.w.Rand.Chance(0.7) {
			c.w.After(c.w.Rand.Long(10*time.Millisecond, 4*time.Second, 0.4), c.restoreVolume)
		}
		return
	}
	c.deleted[1] = true
	if l := c.leader(); l != nil {
		c.stats["deletions asked for"]++
		l.reign.ask(func(err error) { c.trace(l.host, "deletion: %v", err) }, func(id uint64) reign.Event {
			return reign.DeleteVolume{Request: id, Volume: c.volIDs[1]}
		})
	}
	c.w.After(c.w.Rand.Between(100*time.Millisecond, 2*time.Second), c.deleteVolume)
}

// trashed is the second volume in the trash.
func (c *Cluster) trashed() (catalog.Trashed, bool) {
	if len(c.volIDs) < 2 {
		return catalog.Trashed{}, false
	}
	t, ok := c.truth.state.Trash[c.volIDs[1]]
	return t, ok
}

// restoreVolume has the leader of the moment restore it, until it is there. With it come clients, and perhaps another deletion.
func (c *Cluster) restoreVolume() {
	t, kept := c.trashed()
	if !kept || c.calmed {
		return
	}
	if l := c.leader(); l != nil && l.reign.core.Status().Epoch != 0 {
		l.propose(catalog.RestoreVolume{Volume: t.Volume.ID, Since: t.Since}, func(_ truth.Outcome, err error) {
			c.trace(l.host, "restoration: %v", err)
		})
	}
	c.w.After(c.w.Rand.Between(100*time.Millisecond, time.Second), c.restoreVolume)
}

// noteRestored follows the end of a restoration.
func (c *Cluster) noteRestored() {
	c.goneAt = 0
	c.deleted[1] = false
	c.stats["volumes that were restored"]++
	if c.w.Rand.Chance(0.3) {
		c.w.After(c.w.Rand.Between(0, 3*time.Second), func() {
			if !c.calmed {
				c.deleteVolume()
			}
		})
	}
}

// keptIn tells whether the second volume is in the trash with an in-sync replica in a pool.
func (c *Cluster) keptIn(p ids.Pool) bool {
	t, ok := c.trashed()
	return ok && slices.ContainsFunc(t.Volume.InSync, func(x catalog.Place) bool { return x.Pool == p })
}
