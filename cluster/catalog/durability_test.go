package catalog

import (
	"testing"

	"pmsapp/internal/ids"
)

func TestDurability(t *testing.T) {
	m, n, v := moving(t)
	id := v().ID
	a, b := v().InSync[0], v().InSync[1]
	m.fails(ErrNoVolume, SetDurability{Volume: ids.Volume(ids.New()), Memory: true})
	m.do(SetDurability{Volume: id, Memory: true})
	one, two := ids.New(), ids.New()
	stranger := ids.Pool(ids.New())
	m.fails(ErrEpoch, SetVolatile{2, id, []Volatile{{a.Pool, one}}})
	m.fails(ErrNoVolume, SetVolatile{1, ids.Volume(ids.New()), nil})
	m.fails(ErrInvalid, SetVolatile{1, id, make([]Volatile, MaxReplicas+1)})
	m.do(SetVolatile{1, id, []Volatile{{a.Pool, one}, {b.Pool, two}, {stranger, one}}})
	if x := v(); !x.Memory || x.Version != 1 || len(x.Volatile) != 2 || x.Volatile[1] != (Volatile{b.Pool, two}) {
		t.Fatalf("%+v", x)
	}
	// Who leaves is not volatile, also when it comes back: then it has everything.
	m.do(RemoveMember{Epoch: 1, Volume: id, Version: 1, Node: b.Node})
	m.do(AddMember{Epoch: 1, Volume: id, Version: 2, Node: b.Node})
	if x := v(); len(x.Volatile) != 1 || x.Volatile[0].Pool != a.Pool {
		t.Fatalf("%+v", x)
	}
	m.do(RemoveUnfenced{Epoch: 1, Fenced: []ids.Pool{b.Pool}, Remove: []ids.Pool{a.Pool}})
	if x := v(); x.Volatile != nil || len(x.InSync) != 1 {
		t.Fatalf("%+v", x)
	}
	m.do(SetVolatile{1, id, []Volatile{{b.Pool, two}}})
	m.do(TakeOver{n[1].ID, 2})
	m.do(Served{2, []VolumeVersion{{Volume: id, Version: 4}}})
	if x := v(); x.Losses != 0 || len(x.Volatile) != 1 {
		t.Fatalf("%+v", x)
	}
	m.do(Served{2, []VolumeVersion{{Volume: id, Version: 3, Lost: true}}}) // of another set: it says nothing
	m.do(Served{2, []VolumeVersion{{Volume: id, Version: 4, Lost: true}}})
	if x := v(); x.Losses != 1 || x.Volatile != nil {
		t.Fatalf("%+v", x)
	}
	m.do(SetDurability{Volume: id})
	if v().Memory {
		t.Fatal("it is not disk again")
	}
}
