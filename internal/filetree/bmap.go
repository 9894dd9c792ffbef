package filetree

import (
	"iter"
	"slices"
)

// fanout bounds the items of a leaf and the children of a branch. A change copies a node on each level, so that it is small.
const fanout = 32

// ordered is a key.
type ordered[K any] interface{ compare(K) int }

// edit is who may change a node in place: the change of a tree that made it. It has a size, so that each has its own address.
type edit struct{ _ byte }

// bmap is an ordered map, a B+ tree, whose copies share what they have in common: a copy of the struct is a copy of the map.
// A change copies the nodes that were not made under the same edit. An empty map has no root.
type bmap[K ordered[K], V any] struct {
	root *bnode[K, V]
	n    int
}

type pair[K, V any] struct {
	key K
	val V
}

// bnode is a leaf if it has no children. Of a branch, items have only keys: items[i].key is at most the lowest key under
// kids[i], and above all keys under kids[i-1].
type bnode[K ordered[K], V any] struct {
	by    *edit
	items []pair[K, V]
	kids  []*bnode[K, V]
	keys  []K
}

func (n *bnode[K, V]) leaf() bool { return n.kids == nil }

func (n *bnode[K, V]) size() int {
	if n.leaf() {
		return len(n.items)
	}
	return len(n.kids)
}

// find returns where a key is in a leaf, or belongs.
func (n *bnode[K, V]) find(k K) (int, bool) {
	return slices.BinarySearchFunc(n.items, k, func(p pair[K, V], k K) int { return p.key.compare(k) })
}

// child returns the child that k is or belongs under.
func (n *bnode[K, V]) child(k K) int {
	i, found := slices.BinarySearchFunc(n.keys, k, func(a, k K) int { return a.compare(k) })
	if !found && i > 0 {
		i--
	}
	return i
}

// mine returns the node, or a copy that e may change.
func (n *bnode[K, V]) mine(e *edit) *bnode[K, V] {
	if n.by == e {
		return n
	}
	c := &bnode[K, V]{by: e}
	if n.leaf() {
		c.items = append(make([]pair[K, V], 0, min(fanout+1, len(n.items)+2)), n.items...)
		return c
	}
	c.kids = append(make([]*bnode[K, V], 0, min(fanout+1, len(n.kids)+1)), n.kids...)
	c.keys = append(make([]K, 0, min(fanout+1, len(n.keys)+1)), n.keys...)
	return c
}

func (m *bmap[K, V]) get(k K) (v V, ok bool) {
	n := m.root
	if n == nil {
		return v, false
	}
	for !n.leaf() {
		n = n.kids[n.child(k)]
	}
	i, ok := n.find(k)
	if ok {
		v = n.items[i].val
	}
	return v, ok
}

func (m *bmap[K, V]) set(e *edit, k K, v V) {
	if m.root == nil {
		m.root = &bnode[K, V]{by: e, items: []pair[K, V]{{k, v}}}
		m.n = 1
		return
	}
	root, right, added := m.root.set(e, k, v)
	if right != nil {
		root = &bnode[K, V]{by: e, kids: []*bnode[K, V]{root, right}, keys: []K{root.low(), right.low()}}
	}
	m.root = root
	if added {
		m.n++
	}
}

// low is the lowest key under a node, or one below.
func (n *bnode[K, V]) low() K {
	if n.leaf() {
		return n.items[0].key
	}
	return n.keys[0]
}

// set returns the node that takes n's place, and another to its right if there are too many for one.
func (n *bnode[K, V]) set(e *edit, k K, v V) (_, right *bnode[K, V], added bool) {
	n = n.mine(e)
	if n.leaf() {
		i, found := n.find(k)
		if found {
			n.items[i].val = v
			return n, nil, false
		}
		n.items = slices.Insert(n.items, i, pair[K, V]{k, v})
		if len(n.items) > fanout {
			at := splitAt(i, len(n.items))
			right = &bnode[K, V]{by: e, items: slices.Clone(n.items[at:])}
			clear(n.items[at:])
			n.items = slices.Clone(n.items[:at])
		}
		return n, right, true
	}
	i := n.child(k)
	kid, more, added := n.kids[i].set(e, k, v)
	n.kids[i] = kid
	if k.compare(n.keys[i]) < 0 {
		n.keys[i] = k
	}
	if more == nil {
		return n, nil, added
	}
	n.kids = slices.Insert(n.kids, i+1, more)
	n.keys = slices.Insert(n.keys, i+1, more.low())
	if len(n.kids) > fanout {
		at := splitAt(i+1, len(n.kids))
		right = &bnode[K, V]{by: e, kids: slices.Clone(n.kids[at:]), keys: slices.Clone(n.keys[at:])}
		n.kids, n.keys = slices.Clone(n.kids[:at]), slices.Clone(n.keys[:at])
	}
	return n, right, added
}

// splitAt tells where a full node is cut: in the middle, but for one that grows at its end, which stays full. Numbers that
// only grow so fill their nodes.
func splitAt(i, n int) int {
	if i == n-1 {
		return n - 1
	}
	return n / 2
}

// delete removes a key and tells whether it was there.
func (m *bmap[K, V]) delete(e *edit, k K) bool {
	if _, ok := m.get(k); !ok {
		return false
	}
	m.n--
	m.root = m.root.delete(e, k)
	for !m.root.leaf() && len(m.root.kids) == 1 {
		m.root = m.root.kids[0]
	}
	if m.root.size() == 0 {
		m.root = nil
	}
	return true
}

// delete removes a key that is there, and returns the node that takes n's place; it may be empty.
func (n *bnode[K, V]) delete(e *edit, k K) *bnode[K, V] {
	n = n.mine(e)
	if n.leaf() {
		i, _ := n.find(k)
		n.items = slices.Delete(n.items, i, i+1)
		return n
	}
	i := n.child(k)
	n.kids[i] = n.kids[i].delete(e, k)
	switch size := n.kids[i].size(); {
	case size == 0:
		n.kids, n.keys = slices.Delete(n.kids, i, i+1), slices.Delete(n.keys, i, i+1)
	case size < fanout/4:
		n.merge(e, max(i-1, 0))
	}
	return n
}

// merge makes one of child i and the next, if that leaves room.
func (n *bnode[K, V]) merge(e *edit, i int) {
	if i+1 >= len(n.kids) || n.kids[i].size()+n.kids[i+1].size() > fanout*3/4 {
		return
	}
	left, right := n.kids[i].mine(e), n.kids[i+1]
	left.items = append(left.items, right.items...)
	left.kids = append(left.kids, right.kids...)
	left.keys = append(left.keys, right.keys...)
	n.kids[i] = left
	n.kids, n.keys = slices.Delete(n.kids, i+1, i+2), slices.Delete(n.keys, i+1, i+2)
}

// from returns the items from k on, in order. The map must not be changed meanwhile, but a copy may be.
func (m *bmap[K, V]) from(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.from(k, yield)
		}
	}
}

func (n *bnode[K, V]) from(k K, yield func(K, V) bool) bool {
	if n.leaf() {
		i, _ := n.find(k)
		for _, p := range n.items[i:] {
			if !yield(p.key, p.val) {
				return false
			}
		}
		return true
	}
	for _, kid := range n.kids[n.child(k):] {
		if !kid.from(k, yield) {
			return false
		}
	}
	return true
}

// floor returns the item with the highest key that is at most k.
func (m *bmap[K, V]) floor(k K) (key K, val V, ok bool) {
	if m.root == nil {
		return key, val, false
	}
	return m.root.floor(k)
}

func (n *bnode[K, V]) floor(k K) (key K, val V, ok bool) {
	if n.leaf() {
		i, found := n.find(k)
		if !found {
			i--
		}
		if i < 0 {
			return key, val, false
		}
		return n.items[i].key, n.items[i].val, true
	}
	for i := n.child(k); i >= 0; i-- {
		if key, val, ok = n.kids[i].floor(k); ok {
			return key, val, true
		}
	}
	return key, val, false
}
