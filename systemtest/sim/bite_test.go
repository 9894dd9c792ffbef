package sim

import (
	"fmt"
	"testing"
)

func TestBites(t *testing.T) {
	for _, b := range Breaks() {
		found := false
		for seed := uint64(1); seed <= *biteFlag; seed++ {
			if r := Run(Options{Seed: seed, Break: b}); r.Err != nil {
				fmt.Printf("%-60.60s seed %d: %.150v\n", b, seed, r.Err)
				found = true
				break
			}
		}
		if !found {
			fmt.Printf("%s NOT FOUND\n", b)
			t.Fail()
		}
	}
}
