package peer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAccept(t *testing.T) {
	var rs []EpochRange
	for _, e := range []Epoch{3, 4, 4, 7, 9, 10} {
		rs = Accept(rs, e)
	}
	want := []EpochRange{{3, 4}, {7, 7}, {9, 10}}
	if d := cmp.Diff(want, rs); d != "" {
		t.Fatal(d)
	}
	for e, in := range map[Epoch]bool{2: false, 3: true, 4: true, 5: false, 7: true, 8: false, 10: true, 11: false} {
		if Has(rs, e) != in {
			t.Errorf("Has(%d) = %v", e, !in)
		}
	}
}

func TestAcceptIsBounded(t *testing.T) {
	var rs []EpochRange
	for e := Epoch(1); e < 4*MaxAccepted; e += 2 {
		rs = Accept(rs, e)
		if len(rs) > MaxAccepted || !Has(rs, e) || !Has(rs, 1) {
			t.Fatalf("after %d: %d ranges", e, len(rs))
		}
	}
}
