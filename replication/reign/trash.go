package reign

import (
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// What becomes of volumes that were deleted: while they are in the trash nothing; when they are purged their replicas go; when they
// are restored they are volumes as others are. See DESIGN.md, "Creating and deleting".

// kept tells whether the catalog has a volume in the trash: its replicas are left alone.
func (c *Core) kept(v ids.Volume) bool {
	_, found := slices.BinarySearchFunc(c.view.Trash, v, func(a, b ids.Volume) int { return slices.Compare(a[:], b[:]) })
	return found
}

// restored tells whether a volume that comes was served in this reign before it was deleted. What its replicas' fence said is old.
func (r *reign) restored(v ids.Volume) bool { return r.retired[v] }

// sweepDeleted removes the replicas of volumes that are newly known to be gone for good, wherever they are known to be.
func (c *Core) sweepDeleted() {
	k := len(c.view.Deleted)
	if k == 0 || c.view.Deleted[k-1] == c.r.swept {
		return
	}
	c.r.swept = c.view.Deleted[k-1]
	for _, n := range c.r.order {
		c.eachLeftover(n, func(p truth.Place, v ids.Volume, deleted bool) {
			if deleted && !c.isDeleting(p, v) {
				c.command(p, peer.Command{Kind: peer.Delete, Volume: v}, command{})
			}
		})
	}
}

func (c *Core) isDeleting(p truth.Place, v ids.Volume) bool {
	for _, cmd := range c.r.commands {
		if cmd.kind == peer.Delete && cmd.place == p && cmd.id == v {
			return true
		}
	}
	return false
}
