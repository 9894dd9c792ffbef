package poolfs

import (
	"maps"
	"os"
	"slices"
	"syscall"
)

// chunk is how many units of a file have their places kept together; a chunk of holes takes no memory.
const chunk = 1024

// node is a file or directory.
type node struct {
	id     uint32
	parent uint32
	name   string
	size   int64
	units  map[uint32]*[chunk]uint32 // of a file, by unit/chunk: place + 1; 0 is a hole
	names  map[string]*node          // of a directory; nil: a file
}

func (n *node) dir() bool { return n.names != nil }

// place returns where a unit of a file is.
func (n *node) place(unit uint32) (at uint32, ok bool) {
	c := n.units[unit/chunk]
	if c == nil || c[unit%chunk] == 0 {
		return 0, false
	}
	return c[unit%chunk] - 1, true
}

// state is what is known of the files: pure, changed by ops alone.
type state struct {
	l     Layout
	nodes map[uint32]*node
	next  uint32 // above every id
	names int64  // bytes that the creating ops of all nodes have
	used  bitmap // units of the device that are some file's
}

func newState(l Layout) *state {
	root := &node{id: rootID, names: map[string]*node{}}
	return &state{l: l, nodes: map[uint32]*node{rootID: root}, next: rootID + 1, used: newBitmap(l.Units)}
}

// apply changes the state, or says why the op is not possible: then nothing has changed. freed are the units that no file has now.
func (s *state) apply(o op) (freed []uint32, err error) {
	if o.kind == opCreate {
		return nil, s.create(o)
	}
	n := s.nodes[o.id]
	if n == nil || n.id == rootID {
		return nil, os.ErrNotExist
	}
	switch o.kind {
	case opResize:
		if n.dir() || o.size < n.size || o.size > maxFile {
			return nil, syscall.EINVAL
		}
		n.size = o.size
	case opMap:
		return nil, s.mapUnits(n, o)
	case opUnmap:
		if n.dir() || o.count == 0 || int64(o.unit)+int64(o.count) > s.l.span(n.size) {
			return nil, syscall.EINVAL
		}
		return s.unmap(n, o.unit, o.count), nil
	case opRename:
		return s.rename(n, o)
	case opRemove:
		delete(s.nodes[n.parent].names, n.name)
		return s.remove(n, nil), nil
	}
	return nil, nil
}

func (s *state) create(o op) error {
	p := s.nodes[o.parent]
	switch {
	case o.id < rootID+1 || s.nodes[o.id] != nil || o.id == ^uint32(0) || !validName(o.name) || o.size < 0 || o.size > maxFile || o.dir && o.size != 0:
		return syscall.EINVAL
	case p == nil:
		return os.ErrNotExist
	case !p.dir():
		return syscall.ENOTDIR
	case p.names[o.name] != nil:
		return os.ErrExist
	case s.names+createSize+int64(len(o.name)) > s.l.room():
		return syscall.ENOSPC
	}
	n := &node{id: o.id, parent: o.parent, name: o.name, size: o.size}
	if o.dir {
		n.names = map[string]*node{}
	} else {
		n.units = map[uint32]*[chunk]uint32{}
	}
	s.nodes[o.id], p.names[o.name] = n, n
	s.next = max(s.next, o.id+1)
	s.names += createSize + int64(len(o.name))
	return nil
}

func (s *state) mapUnits(n *node, o op) error {
	if n.dir() || o.count == 0 || int64(o.unit)+int64(o.count) > s.l.span(n.size) || int64(o.at)+int64(o.count) > int64(s.l.Units) {
		return syscall.EINVAL
	}
	for i := range o.count {
		if _, ok := n.place(o.unit + i); ok || s.used.has(o.at+i) {
			return damaged("unit %d is given out twice", o.at+i)
		}
	}
	for i := range o.count {
		c := n.units[(o.unit+i)/chunk]
		if c == nil {
			c = new([chunk]uint32)
			n.units[(o.unit+i)/chunk] = c
		}
		c[(o.unit+i)%chunk] = o.at + i + 1
		s.used.set(o.at + i)
	}
	return nil
}

func (s *state) unmap(n *node, unit, count uint32) (freed []uint32) {
	for u := int64(unit); u < int64(unit)+int64(count); u++ {
		c := n.units[uint32(u/chunk)]
		if c == nil {
			u = (u/chunk+1)*chunk - 1
			continue
		}
		if at := c[u%chunk]; at != 0 {
			c[u%chunk] = 0
			s.used.clear(at - 1)
			freed = append(freed, at-1)
		}
	}
	return freed
}

func (s *state) rename(n *node, o op) (freed []uint32, err error) {
	p := s.nodes[o.parent]
	switch {
	case p == nil:
		return nil, os.ErrNotExist
	case !p.dir():
		return nil, syscall.ENOTDIR
	case !validName(o.name):
		return nil, syscall.EINVAL
	case s.names+int64(len(o.name)-len(n.name)) > s.l.room():
		return nil, syscall.ENOSPC
	}
	for up := p; ; up = s.nodes[up.parent] {
		if up == n {
			return nil, syscall.EINVAL // into itself
		}
		if up.id == rootID {
			break
		}
	}
	if old := p.names[o.name]; old == n {
		return nil, nil
	} else if old != nil && (old.dir() || n.dir()) {
		return nil, syscall.ENOTEMPTY
	} else if old != nil {
		freed = s.remove(old, nil)
	}
	delete(s.nodes[n.parent].names, n.name)
	s.names += int64(len(o.name) - len(n.name))
	n.parent, n.name = p.id, o.name
	p.names[o.name] = n
	return freed, nil
}

// remove forgets a node and all below it, but for its name.
func (s *state) remove(n *node, freed []uint32) []uint32 {
	for _, c := range n.names {
		freed = s.remove(c, freed)
	}
	for k, c := range n.units {
		for _, at := range c {
			if at != 0 {
				s.used.clear(at - 1)
				freed = append(freed, at-1)
			}
		}
		delete(n.units, k)
	}
	delete(s.nodes, n.id)
	s.names -= createSize + int64(len(n.name))
	return freed
}

// checkpoint is the ops that make the state anew, parents first.
func (s *state) checkpoint() (b []byte) {
	var walk func(n *node)
	walk = func(n *node) {
		if n.id != rootID {
			b = op{kind: opCreate, id: n.id, parent: n.parent, name: n.name, dir: n.dir(), size: n.size}.append(b)
		}
		n.runs(func(o op) { b = o.append(b) })
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			walk(n.names[name])
		}
	}
	walk(s.nodes[rootID])
	return b
}

// runs calls fn with ops that map all units of a file, in ascending order, each as long as it can be.
func (n *node) runs(fn func(op)) {
	var o op
	for _, k := range slices.Sorted(maps.Keys(n.units)) {
		for i, at := range n.units[k] {
			unit := k*chunk + uint32(i)
			switch {
			case at == 0:
			case o.count > 0 && o.unit+o.count == unit && o.at+o.count == at-1:
				o.count++
			default:
				if o.count > 0 {
					fn(o)
				}
				o = op{kind: opMap, id: n.id, unit: unit, at: at - 1, count: 1}
			}
		}
	}
	if o.count > 0 {
		fn(o)
	}
}

// replay makes the state of what an area holds.
func replay(l Layout, batches [][]byte) (*state, error) {
	s := newState(l)
	for i, b := range batches {
		for r := (reader{b: b}); len(r.b) > 0; {
			o, err := r.op()
			if err == nil {
				_, err = s.apply(o)
			}
			if err != nil {
				return nil, damaged("batch %d of the log: %v", i, err)
			}
		}
	}
	return s, nil
}

// any tells whether one of some units has a place.
func (n *node) any(unit, count uint32) bool {
	for u := int64(unit); u < int64(unit)+int64(count); u++ {
		if n.units[uint32(u/chunk)] == nil {
			u = (u/chunk+1)*chunk - 1
		} else if _, ok := n.place(uint32(u)); ok {
			return true
		}
	}
	return false
}
