package outcome

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func at(off int64, b byte) Outcome {
	return Of("p", off, make([]byte, 512), bytes.Repeat([]byte{b}, 512))
}

func TestChange(t *testing.T) {
	a, b, c := at(0, 1), at(512, 2), Of("q", 0, make([]byte, 1024), make([]byte, 1024))
	list := Change(Change(nil, 1, []Outcome{a}, nil), 2, []Outcome{b}, nil)
	if d := cmp.Diff(list, []Kept{{a, 1}, {b, 2}}); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(Change(list, 3, []Outcome{c}, nil), []Kept{{c, 3}}); d != "" {
		t.Error("what overlaps is forgotten:", d)
	}
	if d := cmp.Diff(Change(list, 3, nil, []Outcome{a, c}), []Kept{{b, 2}}); d != "" {
		t.Error("what was dropped is forgotten:", d)
	}
	again := at(0, 9) // another command on the same block
	if d := cmp.Diff(Change(list, 3, nil, []Outcome{again}), list); d != "" {
		t.Error("only the one that was dropped is forgotten:", d)
	}
	for i := range int64(2 * Max) {
		o := at(i*512, 1)
		list = Change(list, 4, []Outcome{o}, nil)
	}
	if len(list) != Max || list[0].Off != Max*512 {
		t.Errorf("%d are kept from %d on", len(list), list[0].Off)
	}
}

func TestValid(t *testing.T) {
	if err := at(0, 1).Valid(); err != nil {
		t.Error(err)
	}
	for i, o := range []Outcome{{}, {Port: "p", Len: 512}, {Port: "p", Off: 1, Len: 512, Digest: at(0, 1).Digest},
		{Port: "p", Len: MaxLen + 512, Digest: at(0, 1).Digest}, {Port: string(make([]byte, 300)), Len: 512, Digest: at(0, 1).Digest}} {
		if !errors.Is(o.Valid(), ErrInvalid) {
			t.Errorf("%d is valid", i)
		}
	}
	if one, same := at(0, 1), at(0, 1); one == at(0, 2) || one != same {
		t.Error("the digest does not tell buffers apart")
	}
}
