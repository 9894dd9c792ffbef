package filetree

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

type num uint64

func (a num) compare(b num) int { return cmp.Compare(a, b) }

// check compares a map with a model, and looks at its shape.
func (m *bmap[K, V]) check(t *testing.T, want []pair[K, V], same func(a, b V) bool) {
	t.Helper()
	if m.n != len(want) {
		t.Fatalf("%d items, not %d", m.n, len(want))
	}
	var zero K
	var got []pair[K, V]
	for k, v := range m.from(zero) {
		got = append(got, pair[K, V]{k, v})
	}
	if !slices.EqualFunc(got, want, func(a, b pair[K, V]) bool { return a.key.compare(b.key) == 0 && same(a.val, b.val) }) {
		t.Fatalf("%v\nnot\n%v", got, want)
	}
	if m.root != nil {
		m.root.shape(t, 0)
	}
}

func (n *bnode[K, V]) shape(t *testing.T, level int) int {
	t.Helper()
	if n.size() == 0 || n.size() > fanout || len(n.kids) != len(n.keys) {
		t.Fatalf("a node of %d items, %d children, %d keys", len(n.items), len(n.kids), len(n.keys))
	}
	depth := 0
	for i, k := range n.kids {
		d := k.shape(t, level+1) + 1
		if i > 0 && d != depth {
			t.Fatal("leaves on different levels")
		}
		depth = d
	}
	return depth
}

func TestMapAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var m bmap[num, int]
		model := map[num]int{}
		var (
			kept      bmap[num, int]
			keptModel []pair[num, int]
		)
		sorted := func() (all []pair[num, int]) {
			for k, v := range model {
				all = append(all, pair[num, int]{k, v})
			}
			slices.SortFunc(all, func(a, b pair[num, int]) int { return a.key.compare(b.key) })
			return all
		}
		e := new(edit)
		space := []int{40, 400, 4000}[seed%3]
		for i := range 6000 {
			if r.IntN(7) == 0 {
				e = new(edit)
			}
			k := num(r.IntN(space))
			if i%2000 > 1200 { // times in which it shrinks
				_, had := model[k]
				delete(model, k)
				if m.delete(e, k) != had {
					t.Fatal("delete")
				}
			} else {
				model[k] = i
				m.set(e, k, i)
			}
			q := num(r.IntN(space))
			if v, ok := m.get(q); ok != (func() bool { _, ok := model[q]; return ok }()) || ok && v != model[q] {
				t.Fatal("get", q, v, ok)
			}
			if i%500 == 0 {
				all := sorted()
				m.check(t, all, func(a, b int) bool { return a == b })
				kept.check(t, keptModel, func(a, b int) bool { return a == b }) // a copy never changes
				j, found := slices.BinarySearchFunc(all, q, func(p pair[num, int], k num) int { return p.key.compare(k) })
				if !found {
					j--
				}
				if k, _, ok := m.floor(q); ok != (j >= 0) || ok && k != all[j].key {
					t.Fatal("floor", q, k, ok)
				}
				kept, keptModel, e = m, all, new(edit)
			}
		}
	}
}

func TestGrowingNumbersFillTheirNodes(t *testing.T) {
	var m bmap[num, int]
	for i := range 100 * fanout {
		m.set(new(edit), num(i), i)
	}
	leaves := 0
	var count func(*bnode[num, int])
	count = func(n *bnode[num, int]) {
		if n.leaf() {
			leaves++
		}
		for _, k := range n.kids {
			count(k)
		}
	}
	if count(m.root); leaves > 101 {
		t.Fatalf("%d leaves for 100 full ones", leaves)
	}
}
