package catalog

import (
	"testing"

	"pmsapp/internal/ids"
)

// TestSetDrain: a node that tells of itself does not take back what an admin said of it, under a new identity neither.
func TestSetDrain(t *testing.T) {
	m, n, _ := moving(t)
	m.fails(ErrNoNode, SetDrain{Node: ids.NewNode(), On: true})
	m.fails(ErrInvalid, SetDrain{Node: n[0].ID, Pool: n[1].Pools[0].ID, On: true})
	m.do(SetDrain{Node: n[0].ID, On: true})
	m.do(SetDrain{Node: n[1].ID, Pool: n[1].Pools[0].ID, On: true})
	m.do(PutNode{Node: n[0]})
	m.do(PutNode{Node: n[1]})
	if !m.s.Nodes[n[0].ID].Draining || m.s.Nodes[n[0].ID].Pools[0].Draining || !m.s.Nodes[n[1].ID].Pools[0].Draining {
		t.Fatalf("%+v", m.s.Nodes)
	}
	reborn := n[1]
	reborn.ID = ids.NewNode()
	m.do(PutNode{Node: reborn, Former: n[1].ID})
	if !m.s.Nodes[reborn.ID].Pools[0].Draining {
		t.Fatal("the pool is not drained any more")
	}
	m.do(SetDrain{Node: n[0].ID})
	m.do(SetDrain{Node: reborn.ID, Pool: n[1].Pools[0].ID})
	if m.s.Nodes[n[0].ID].Draining || m.s.Nodes[reborn.ID].Pools[0].Draining {
		t.Fatal("it cannot be cancelled")
	}
}
