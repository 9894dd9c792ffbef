package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/outcome"
)

// TestOutcomes: they change only under the epoch that serves, survive it, and go with what they are of.
func TestOutcomes(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	o := outcome.Of("iqn.a,i,0x000000000001", 512, make([]byte, 512), make([]byte, 512))
	m.fails(ErrNotServed, Outcomes{1, v.ID, []outcome.Outcome{o}, nil})
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.do(Outcomes{1, v.ID, []outcome.Outcome{o}, nil})
	m.fails(ErrInvalid, Outcomes{1, v.ID, []outcome.Outcome{{}}, nil})
	m.fails(ErrInvalid, Outcomes{1, v.ID, nil, make([]outcome.Outcome, MaxOutcomes+1)})
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrEpoch, Outcomes{1, v.ID, nil, []outcome.Outcome{o}})
	m.fails(ErrNotServed, Outcomes{2, v.ID, nil, []outcome.Outcome{o}})
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s.Outcomes[v.ID], []outcome.Kept{{Outcome: o, Epoch: 1}}); d != "" {
		t.Fatal(d)
	}
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(Outcomes{2, v.ID, nil, []outcome.Outcome{o}})
	if len(m.s.Outcomes) != 0 {
		t.Fatal(m.s.Outcomes)
	}
	m.do(Outcomes{2, v.ID, []outcome.Outcome{o}, nil})
	m.do(RemoveExport{2, v.ID})
	if len(m.s.Outcomes) != 0 {
		t.Fatal(m.s.Outcomes)
	}
}
