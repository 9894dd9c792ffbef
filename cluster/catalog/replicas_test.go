package catalog

import (
	"slices"
	"testing"

	"pmsapp/internal/ids"
)

// moving has a volume on nodes 0 and 1, served under epoch 1 by node 0.
func moving(t *testing.T) (m *machine, n [3]Node, v func() Volume) {
	m = newMachine(t)
	n, vol := m.three()
	m.do(Served{1, []VolumeVersion{{Volume: vol.ID, Version: 1}}})
	return m, n, func() Volume { return m.s.Volumes[vol.ID] }
}

func at(n Node) Place { return Place{n.ID, n.Pools[0].ID} }

func (m *machine) add(v Volume, p Place, instead ids.Node) {
	m.t.Helper()
	m.do(AddReplica{1, v.ID, v.Version, p, instead, "asked", nil})
}

func TestMoveReplica(t *testing.T) {
	m, n, v := moving(t)
	add := AddReplica{1, v().ID, 1, at(n[2]), n[1].ID, "asked", nil}
	m.fails(ErrEpoch, AddReplica{2, v().ID, 1, at(n[2]), n[1].ID, "", nil})
	m.fails(ErrInUse, AddReplica{1, v().ID, 1, at(n[1]), ids.Node{}, "", nil})
	m.fails(ErrInvalid, AddReplica{1, v().ID, 1, Place{n[2].ID, n[1].Pools[0].ID}, ids.Node{}, "", nil})
	m.fails(ErrNoReplica, AddReplica{1, v().ID, 1, at(n[2]), n[2].ID, "", nil})
	m.do(add)
	m.fails(ErrVersion, add) // of two for one state one is applied
	drop := func(n Node) DropReplica { return DropReplica{1, v().ID, v().Version, n.ID} }
	m.fails(ErrInUse, drop(n[1])) // the new one is not in sync
	m.fails(ErrInUse, drop(n[2]))
	m.fails(ErrInUse, drop(n[0]))
	m.do(AddMember{1, v().ID, v().Version, n[2].ID})
	m.fails(ErrInUse, drop(n[1])) // it is in the set
	m.do(RemoveMember{1, v().ID, v().Version, n[1].ID, ""})
	m.fails(ErrNoReplica, AddMember{1, v().ID, v().Version, n[1].ID}) // it has no way back
	m.do(drop(n[1]))
	if got := v(); len(got.Leaving) != 0 || !slices.Equal(got.Gone, []Place{at(n[1])}) || hasNode(got.Replicas, n[1].ID) {
		t.Fatalf("%+v", got)
	}
	m.fails(ErrInUse, AddReplica{1, v().ID, v().Version, at(n[1]), ids.Node{}, "", nil}) // its bytes are still there
	m.do(ForgetReplica{1, v().ID, at(n[1])})
	m.add(v(), at(n[1]), ids.Node{})
	if got := v(); len(got.Replicas) != 3 || len(got.InSync) != 2 || len(got.Gone) != 0 {
		t.Fatalf("%+v", got)
	}
}

// TestRetire: the last in-sync one stays, a move is called off by retiring the new replica, and only who serves may change.
func TestRetire(t *testing.T) {
	m, n, v := moving(t)
	retire := func(n Node) RetireReplica { return RetireReplica{1, v().ID, v().Version, n.ID, "asked"} }
	m.fails(ErrNoReplica, retire(n[2]))
	m.add(v(), at(n[2]), n[0].ID)
	m.do(retire(n[1]))
	m.fails(ErrLastMember, retire(n[0]))
	m.fails(ErrInUse, AddReplica{1, v().ID, v().Version, at(n[2]), n[0].ID, "", nil})
	m.do(retire(n[2])) // called off: 0 stays
	if got := v(); got.leaves(n[0].ID) || !got.leaves(n[1].ID) || !got.leaves(n[2].ID) {
		t.Fatalf("%+v", got.Leaving)
	}
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrNotServed, RetireReplica{2, v().ID, v().Version, n[1].ID, ""})
	m.fails(ErrNotServed, AddReplica{2, v().ID, v().Version, at(n[2]), ids.Node{}, "", nil})
	m.fails(ErrNotServed, DropReplica{2, v().ID, v().Version, n[2].ID})
}

// TestMovingNodes: what is said of a node's replicas goes with its pools to its new identity, and with it when it is removed.
func TestMovingNodes(t *testing.T) {
	m, n, v := moving(t)
	m.add(v(), at(n[2]), n[1].ID)
	reborn := n[2]
	reborn.ID, reborn.Name = ids.NewNode(), "reborn"
	m.do(PutNode{Node: reborn, Former: n[2].ID})
	if l := v().Leaving; len(l) != 1 || l[0] != (Leave{n[1].ID, reborn.ID, "asked"}) || !hasNode(v().Replicas, reborn.ID) {
		t.Fatalf("%+v", v())
	}
	m.do(RemoveNode{reborn.ID})
	if got := v(); len(got.Leaving) != 0 || len(got.Replicas) != 2 {
		t.Fatalf("%+v", got)
	}
	m.do(RemoveMember{1, v().ID, v().Version, n[1].ID, ""})
	m.do(RetireReplica{1, v().ID, v().Version, n[1].ID, ""})
	m.do(DropReplica{1, v().ID, v().Version, n[1].ID})
	// A pool with what is left of a replica is not forgotten because its disk is absent at a start.
	bare := n[1]
	bare.Pools = nil
	m.do(PutNode{Node: bare})
	if len(m.s.Nodes[n[1].ID].Pools) != 1 {
		t.Fatal("its pool is forgotten")
	}
	other := n[1]
	other.ID, other.Name = ids.NewNode(), "other"
	m.do(PutNode{Node: other, Former: n[1].ID})
	if got := v().Gone; len(got) != 1 || got[0].Node != other.ID {
		t.Fatalf("%+v", got)
	}
	m.do(RemoveNode{other.ID})
	if len(v().Gone) != 0 {
		t.Fatal("a node that was removed is waited for")
	}
}

// TestMaxPlaces: no more than three stay, and one on its way out.
func TestMaxPlaces(t *testing.T) {
	m, n, v := moving(t)
	m.add(v(), at(n[2]), ids.Node{})
	var more [2]Node
	for i := range more {
		more[i] = Node{ID: ids.NewNode(), Name: string(rune('a' + i)), Version: 1, Pools: []Pool{{ID: ids.NewPool(), Path: "/q"}}}
		m.do(PutNode{Node: more[i]})
	}
	m.fails(ErrLimit, AddReplica{1, v().ID, v().Version, at(more[0]), ids.Node{}, "", nil})
	m.add(v(), at(more[0]), n[2].ID)
	m.fails(ErrLimit, AddReplica{1, v().ID, v().Version, at(more[1]), n[1].ID, "", nil})
}
