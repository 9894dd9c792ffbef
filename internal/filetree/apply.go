package filetree

// What things take in a snapshot at most, beside names and texts, in bytes.
const (
	metaInode  = 80
	metaEntry  = 32
	metaExtent = 32
	metaReply  = 40
)

// maxTime bounds the times of ops, in ns: 2116.
const maxTime = 1 << 62

// Apply does the ops of a batch, which DecodeBatch returned, one after the other. Each succeeds or fails by itself; one that
// fails has no effect. room is how much Meta may grow. The receiver does not change.
func (t *Tree) Apply(b Batch, room int64) (*Tree, []Result) {
	n := *t
	n.by = new(edit)
	if b.Ceil <= maxTime {
		n.ceil = max(n.ceil, b.Ceil)
	}
	results := make([]Result, len(b.Ops))
	for i := range b.Ops {
		o := &b.Ops[i]
		if o.Reply != (Key{}) {
			if r, ok := n.Replied(o.Reply); ok {
				results[i] = Result{Status: r.Status, Ino: r.Ino, Replay: true}
				continue
			}
		}
		r := &results[i]
		if n.meta-t.meta > room && grows(o.Kind) {
			r.Status = NoSpace
		} else {
			n.do(o, r)
		}
		if r.Status != OK {
			*r = Result{Status: r.Status}
		}
		n.record(o.Reply, Reply{r.Status, r.Ino})
	}
	n.by = nil
	return &n, results
}

// grows tells which ops make the tree larger, other than by a bounded sum.
func grows(k Kind) bool { return k == Create || k == Link || k == Rename || k == Write || k == Lock }

func (t *Tree) record(k Key, r Reply) {
	if k == (Key{}) || r.Status == Again || r.Status == Held {
		return
	}
	t.seq++
	t.replies.set(t.by, k, recorded{r, t.seq})
	t.order.set(t.by, number(t.seq), k)
	t.meta += metaReply
	for t.order.n > MaxReplies {
		for seq, old := range t.order.from(0) {
			t.order.delete(t.by, seq)
			t.replies.delete(t.by, old)
			t.meta -= metaReply
			break
		}
	}
}

// do changes t only if it leaves the status OK: what an op needs is looked at before anything is changed.
func (t *Tree) do(o *Op, r *Result) {
	for _, ns := range []int64{o.Now, o.Set.Atime, o.Set.Mtime, o.Set.Ctime} {
		if ns < 0 || ns > maxTime {
			r.Status = Inval
			return
		}
	}
	switch o.Kind {
	case Create:
		t.create(o, r)
	case Link:
		t.link(o, r)
	case Remove, Rmdir:
		t.remove(o, r)
	case Rename:
		t.rename(o, r)
	case SetAttr:
		t.setAttr(o, r)
	case Write:
		t.write(o, r)
	case Cut:
		t.cut(o, r)
	case Mark:
		t.mark(o, r)
	case Settle:
		t.settle(o, r)
	case Ahead:
		t.move(o, r, &t.free, &t.ahead)
	case Back:
		t.move(o, r, &t.ahead, &t.freed)
	case Zeroed:
		t.move(o, r, &t.freed, &t.free)
	case Open:
		t.open(o, r)
	case Resize:
		t.resize(o, r)
	case Lock:
		t.lock(o, r)
	case Unlock:
		t.unlock(o, r)
	case Release:
		t.release(o, r)
	default:
		r.Status = ServerFault
	}
}

// now is the time of an op: later than any that the tree has set.
func (t *Tree) now(o *Op) int64 {
	t.clock = max(o.Now, t.clock+1)
	return t.clock
}

// live returns an inode that has a name.
func (t *Tree) live(ino uint64) (Inode, Status) {
	n, ok := t.Inode(ino)
	if !ok || n.Nlink == 0 {
		return n, Stale
	}
	return n, OK
}

// dir returns a directory in which a name is to be changed.
func (t *Tree) dir(ino uint64, name string) (Inode, Status) {
	n, s := t.live(ino)
	switch {
	case s != OK:
		return n, s
	case n.Type != Directory:
		return n, NotDir
	case len(name) > MaxName:
		return n, NameTooLong
	case !nameOK(name):
		return n, Inval
	}
	return n, OK
}

func nameOK(name string) bool {
	if name == "" || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

func (t *Tree) putEntry(dir, cookie uint64, name string, ino uint64) {
	t.entries.set(t.by, entryKey{dir, cookie}, dirent{name, ino})
	t.meta += metaEntry + int64(len(name))
}

func (t *Tree) dropEntry(dir uint64, e Entry) {
	t.entries.delete(t.by, entryKey{dir, e.Cookie})
	t.meta -= metaEntry + int64(len(e.Name))
}

// touchDir writes a directory whose entries changed, and tells of it.
func (t *Tree) touchDir(c *Change, ino uint64, n Inode, entries int64, links int, now int64) {
	c.Ino, c.Before = ino, n
	n.Size += entries
	n.Nlink = uint32(int64(n.Nlink) + int64(links))
	n.Mtime, n.Ctime = now, now
	c.After = n
	t.putInode(ino, n)
}
