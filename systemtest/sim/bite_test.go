package sim

import (
	"fmt"
	"strings"
	"testing"
)

func TestBites(t *testing.T) {
	for _, b := range Breaks() {
		if *onlyFlag != "" && !strings.Contains(string(b), *onlyFlag) {
			continue
		}
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

func breakNamed(s string) Break {
	for _, b := range Breaks() {
		if s != "" && strings.Contains(string(b), s) {
			return b
		}
	}
	return BreakNothing
}
