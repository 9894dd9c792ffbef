package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
)

// machine applies commands one after the other.
type machine struct {
	t  *testing.T
	s  *State
	at time.Time // of the commands
}

func newMachine(t *testing.T) *machine { return &machine{t: t, s: Empty(), at: time.Unix(1e9, 0)} }

func (m *machine) try(c Command) (Result, error) {
	m.t.Helper()
	b, err := m.s.Encode(c)
	if err != nil {
		m.t.Fatal(err)
	}
	before := snapshot(m.t, m.s)
	next, r, err := Apply(m.s, m.s.Index+1, b)
	if after := snapshot(m.t, m.s); !bytes.Equal(before, after) {
		m.t.Fatalf("%T changed the state that it was given", c.Body)
	}
	if err != nil {
		same := *m.s
		same.Index++
		if d := cmp.Diff(&same, next, sameTrees()); d != "" {
			m.t.Fatalf("%T failed and changed the state:\n%s", c.Body, d)
		}
	}
	m.s = next
	return r, err
}

func (m *machine) do(b Body) Result {
	m.t.Helper()
	r, err := m.try(Command{Body: b, Time: m.at})
	if err != nil {
		m.t.Fatalf("%+v: %v", b, err)
	}
	return r
}

func (m *machine) fails(want error, b Body) {
	m.t.Helper()
	if _, err := m.try(Command{Body: b}); !errors.Is(err, want) {
		m.t.Fatalf("%+v: %v, not %v", b, err, want)
	}
}

// three nodes with a pool each, node 0 leading in epoch 1, and a volume on 0 and 1.
func (m *machine) three() (n [3]Node, v Volume) {
	m.t.Helper()
	m.do(Bootstrap{ids.NewCluster(), ids.NewLineage(), make([]byte, 32)})
	for i := range n {
		n[i] = Node{ID: ids.NewNode(), Name: fmt.Sprint("node", i), Version: Version, Pools: []Pool{{ID: ids.NewPool(), Path: "/p"}}}
		m.do(PutNode{Node: n[i]})
	}
	m.do(TakeOver{n[0].ID, 1})
	v = Volume{ID: ids.NewVolume(), Lineage: ids.NewLineage(), Name: "v", Size: 1 << 20, Region: 1 << 20, Logical: 512,
		Replicas: []Place{{n[0].ID, n[0].Pools[0].ID}, {n[1].ID, n[1].Pools[0].ID}}}
	m.do(CreateVolume{1, v, nil})
	return n, v
}

func TestVolumes(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(CreateVolume{1, v, nil}) // again
	m.fails(ErrNameTaken, CreateVolume{1, func() Volume { w := v; w.ID = ids.NewVolume(); return w }(), nil})
	m.fails(ErrEpoch, CreateVolume{2, v, nil})
	if got := m.s.Volumes[v.ID]; got.Version != 1 || len(got.InSync) != 2 {
		t.Fatal(got)
	}
	m.fails(ErrVersion, RemoveMember{1, v.ID, 2, n[1].ID, ""})
	if r := m.do(RemoveMember{1, v.ID, 1, n[1].ID, ""}); r.Version != 2 || len(r.InSync) != 1 {
		t.Fatal(r)
	}
	m.fails(ErrNoReplica, RemoveMember{1, v.ID, 2, n[1].ID, ""})
	m.fails(ErrLastMember, RemoveMember{1, v.ID, 2, n[0].ID, ""})
	m.fails(ErrNoReplica, AddMember{1, v.ID, 2, n[2].ID})
	m.do(AddMember{1, v.ID, 2, n[1].ID})
	m.fails(ErrVersion, AddMember{1, v.ID, 3, n[1].ID})
	m.fails(ErrNotServed, SetExport{1, Export{Volume: v.ID, LUN: 1}})
	if r := m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 2}}}); len(r.Left) != 1 {
		t.Fatal(r)
	}
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 3}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.fails(ErrInUse, DeleteVolume{1, v.ID, 3, 0})
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrEpoch, RemoveExport{1, v.ID})
	m.fails(ErrNotServed, RemoveExport{2, v.ID})
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 3}}})
	m.do(RemoveExport{2, v.ID})
	m.do(DeleteVolume{2, v.ID, 3, 0})
	m.do(DeleteVolume{2, v.ID, 3, 0})
	m.fails(ErrNoVolume, CreateVolume{2, v, nil})
	m.fails(ErrEpoch, TakeOver{n[0].ID, 2})
}

func TestRemoveUnfenced(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	alone := v
	alone.ID, alone.Name, alone.Replicas = ids.NewVolume(), "alone", v.Replicas[1:]
	m.do(CreateVolume{1, alone, nil})
	m.do(TakeOver{n[2].ID, 2})
	r := m.do(RemoveUnfenced{2, []ids.Pool{n[0].Pools[0].ID}, []ids.Pool{n[1].Pools[0].ID}, ""})
	if d := cmp.Diff([]ids.Volume{alone.ID}, r.Left); d != "" {
		t.Fatal(d)
	}
	if got := m.s.Volumes[v.ID]; got.Version != 2 || len(got.InSync) != 1 || got.InSync[0].Node != n[0].ID {
		t.Fatal(got)
	}
	m.fails(ErrEpoch, RemoveUnfenced{1, nil, nil, ""})
}

func TestNodes(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.fails(ErrNameTaken, PutNode{Node: Node{ID: ids.NewNode(), Name: "node1", Version: 1}})
	m.fails(ErrInUse, RemoveNode{n[1].ID})
	// The machine of node1 under a new identity, with its pool.
	again := n[1]
	again.ID = ids.NewNode()
	port, newest := m.s.Nodes[n[1].ID].Group, m.s.Nodes[n[2].ID].Group
	m.do(PutNode{Node: again})
	if g := m.s.Nodes[again.ID].Group; g != port {
		t.Fatalf("the port of the machine was %d and is %d", port, g)
	}
	if got := m.s.Volumes[v.ID]; got.InSync[1].Node != again.ID || got.Replicas[1].Node != again.ID || got.Version != 2 {
		t.Fatal(got)
	}
	if _, still := m.s.Nodes[n[1].ID]; still {
		t.Fatal("the old identity is still there")
	}
	m.fails(ErrNoNode, PutNode{Node: n[1]})
	// A pool that holds a replica stays known when its disk is absent at a start.
	absent := again
	absent.Pools = nil
	m.do(PutNode{Node: absent})
	if len(m.s.Nodes[again.ID].Pools) != 1 {
		t.Fatal("a pool was forgotten")
	}
	m.do(RemoveNode{n[2].ID})
	m.do(RemoveNode{n[2].ID})
	fresh := Node{ID: ids.NewNode(), Name: "fresh", Version: 1}
	m.do(PutNode{Node: fresh})
	if g := m.s.Nodes[fresh.ID].Group; g <= newest {
		t.Fatalf("group %d is used again, %d was the newest", g, newest)
	}
	if g := m.s.Nodes[again.ID].Group; g == m.s.Nodes[n[0].ID].Group || g == 0 {
		t.Fatal(g)
	}
	m.fails(ErrInvalid, TakeOver{func() ids.Node {
		w := Node{ID: ids.NewNode(), Name: "w", Version: 1, Witness: true}
		m.do(PutNode{Node: w})
		return w.ID
	}(), 9})
}

func TestTokens(t *testing.T) {
	m := newMachine(t)
	now := time.Unix(1000000, 0)
	tok := Token{Digest: make([]byte, 32), Expires: now.Add(time.Hour)}
	m.do(AddToken{tok})
	use := func(d []byte, n ids.Node, at time.Time, witness bool) error {
		_, err := m.try(Command{Time: at, Body: UseToken{d, n, witness}})
		return err
	}
	a := ids.NewNode()
	if err := use(bytes.Repeat([]byte{1}, 32), a, now, false); !errors.Is(err, ErrToken) {
		t.Fatal(err)
	}
	if err := use(tok.Digest, a, now.Add(2*time.Hour), false); !errors.Is(err, ErrToken) {
		t.Fatal(err)
	}
	if err := use(tok.Digest, a, now, true); !errors.Is(err, ErrToken) {
		t.Fatal(err)
	}
	if err := errors.Join(use(tok.Digest, a, now, false), use(tok.Digest, a, now, false)); err != nil {
		t.Fatal(err)
	}
	if err := use(tok.Digest, ids.NewNode(), now, false); !errors.Is(err, ErrToken) {
		t.Fatal(err)
	}
}

func TestRequestsHaveTheirEffectOnce(t *testing.T) {
	m := newMachine(t)
	_, v := m.three()
	c := Command{Request: "r", Body: RemoveMember{1, v.ID, 1, v.Replicas[1].Node, ""}}
	first, err := m.try(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.try(c)
	if d := cmp.Diff(first, again); err != nil || d != "" {
		t.Fatal(err, d)
	}
}

func TestBounds(t *testing.T) {
	s := Empty()
	for i := range MaxEvents + 10 {
		b, err := Encode(Command{Request: fmt.Sprint(i), Body: AddEvents{[]Event{{Text: "x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if s, _, err = Apply(s, uint64(i), b); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Events) != MaxEvents || len(s.Requests) != MaxRequests || s.Events[0].Index != 10 {
		t.Fatal(len(s.Events), len(s.Requests))
	}
}

func TestOldNode(t *testing.T) {
	s := Empty()
	s.Nodes[ids.NewNode()] = Node{Name: "old"} // version 0: it knows nothing
	b, err := Encode(Command{Body: Bootstrap{ids.NewCluster(), ids.NewLineage(), make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Apply(s, 1, b); !errors.Is(err, ErrOldNode) {
		t.Fatal(err)
	}
}

func TestSnapshot(t *testing.T) {
	m := newMachine(t)
	m.three()
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if d := cmp.Diff(m.s, s); err != nil || d != "" {
		t.Fatal(err, d)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1
		if _, err := DecodeSnapshot(c); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, b := range []Body{Bootstrap{ids.NewCluster(), ids.NewLineage(), make([]byte, 32)}, PutNode{Node: Node{ID: ids.NewNode(), Name: "a", Version: 1}},
		TakeOver{ids.NewNode(), 1}, CreateVolume{}, SetExport{}, UseToken{}, RemoveUnfenced{Epoch: 1}, Reserve{Epoch: 1}} {
		e, err := Encode(Command{Body: b, Request: "x"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e)
	}
	change, err := Empty().Encode(Command{Body: ChangeTree{1, ids.NewVolume(), 1, mkdir("a")}, Time: time.Unix(0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(change)
	f.Add([]byte(`{"kind":"served","body":{"Epoch":1,"Volumes":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(t)
		m.three()
		next, _, err := Apply(m.s, 100, b)
		if next == nil || next.Index != 100 || err != nil && len(next.Volumes) != 1 {
			t.Fatal(next, err)
		}
		for _, v := range next.Volumes {
			if len(v.InSync) == 0 {
				t.Fatal("an in-sync set is empty")
			}
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add(snapshot(f, Empty()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSnapshot(b); err == nil && s == nil {
			t.Fatal("no state and no error")
		}
	})
}

// A leader's clock that jumps changes when tokens end, and nothing else: events keep the order of the log.
func TestClockJumps(t *testing.T) {
	m := newMachine(t)
	now := time.Unix(1000000, 0)
	tok := Token{Digest: make([]byte, 32), Expires: now.Add(time.Hour)}
	m.do(AddToken{tok})
	for i, at := range []time.Time{now, now.AddDate(100, 0, 0), time.Unix(0, 0), {}, now.AddDate(-10, 0, 0)} {
		_, err := m.try(Command{Time: at, Body: AddEvents{Events: []Event{{Time: at, Kind: "k", Text: string(rune('a' + i))}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	text := ""
	for i, e := range m.s.Events {
		text += e.Text
		if i > 0 && e.Index <= m.s.Events[i-1].Index {
			t.Error("events lost their order")
		}
	}
	if text != "abcde" {
		t.Errorf("events %q", text)
	}
	use := func(at time.Time) error {
		_, err := m.try(Command{Time: at, Body: UseToken{tok.Digest, ids.NewNode(), false}})
		return err
	}
	if err := use(now.AddDate(100, 0, 0)); !errors.Is(err, ErrToken) {
		t.Error("ahead:", err)
	}
	if err := use(now); err != nil {
		t.Error("back again:", err)
	}
}

// snapshot is a state as it is written.
func snapshot(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
