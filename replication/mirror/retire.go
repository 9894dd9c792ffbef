package mirror

import (
	"errors"
	"time"

	"pmsapp/internal/ids"
)

// ErrRetired is the reason for removing a member that is to leave the volume.
var ErrRetired = errors.New("mirror: the replica is to leave the volume")

// retirement is a member that is to leave, by the catalog, as long as the in-sync set is the one that was judged.
type retirement struct {
	node  ids.Node
	set   []ids.Node
	until time.Duration
	asked uint64 // the arrival after which the others have to have confirmed: who died is not always known yet
}

// retireFor is how long one Retire counts: whoever wants a member to leave says so again as long as that is so. So what was
// called off, or meant for an earlier replica on that node, is void soon.
const retireFor = 2 * time.Second

// Retire has the replica of node leave the in-sync set, while that is exactly set and all its other members are sound and have said since
// that they are there. It is void when the set has changed, after one removal, and after retireFor. A later one takes the place of one before.
func (c *Core) Retire(node ids.Node, set []ids.Node) {
	c.arrival++
	c.retiring = retirement{node: node, set: set, until: c.now + retireFor, asked: c.arrival}
	c.run()
}

// mayRetire is the slot of the member that is to leave, or -1.
func (c *Core) mayRetire() int {
	leaves := c.slotOf(c.retiring.node)
	if leaves < 0 || c.now >= c.retiring.until || c.retiring.node.IsZero() || !c.members.has(leaves) {
		return -1
	}
	var set mask
	for _, n := range c.retiring.set {
		i := c.slotOf(n)
		if i < 0 {
			return -1
		}
		set |= bit(i)
	}
	rest := set &^ bit(leaves)
	if set != c.members || rest == 0 || c.sound(rest) != rest {
		return -1
	}
	for i := range c.slots {
		if rest.has(i) && c.slots[i].confirmed < c.retiring.asked {
			c.wantConfirm(i, c.retiring.asked)
			leaves = -1
		}
	}
	return leaves
}
