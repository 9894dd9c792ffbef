package reign

import "pmsapp/replication/truth"

// durability is what a mirror and its hosts are told.
type durability struct {
	memory   bool // writes may be acknowledged from memory
	volatile bool // something that was acknowledged may not be durable
}

func (c *Core) durability(tv *truth.Volume) durability {
	d := durability{memory: tv.Memory && !c.through[tv.ID]}
	d.volatile = d.memory || len(tv.Volatile) > 0
	return d
}

// followDurability has an open mirror take the durability that the catalog has.
func (c *Core) followDurability(v *vol, tv *truth.Volume) {
	if d := c.durability(tv); v.stage == open && v.told != d {
		v.told = d
		c.emit(SetDurability{Volume: *tv, Memory: d.memory, Volatile: d.volatile})
	}
}
