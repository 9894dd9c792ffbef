package soak

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"pmsapp/systemtest/program"
)

var (
	rounds   = flag.Int("rounds", 0, "how many rounds; 0: one of each kind, in order")
	kinds    = flag.String("kinds", "", "only these kinds of rounds, with commas")
	seed     = flag.Uint64("seed", 0, "0: a new one")
	replicas = flag.Int("replicas", 2, "of the volume")
	race     = flag.Bool("races", false, "build the daemons with the race detector")
	keep     = flag.String("dir", "", "for the nodes' data; by default it is removed after a success")
)

// testWriter is the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestSoak is `make soak`, and with its defaults a part of `make test`.
func TestSoak(t *testing.T) {
	c := Config{Binary: program.Build(t), Dir: *keep, Rounds: *rounds, Kinds: Kinds(), Replicas: *replicas, Size: 64 << 20, Seed: *seed, Out: testWriter{t}}
	if *race {
		c.Binary = program.BuildRace(t)
	}
	if c.Rounds == 0 {
		c.Rounds, c.Ordered = len(c.Kinds), true
	} else {
		c.Out = os.Stdout
	}
	if *kinds != "" {
		c.Kinds = nil
		for k := range strings.SplitSeq(*kinds, ",") {
			c.Kinds = append(c.Kinds, Kind(k))
		}
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	if c.Dir == "" {
		dir, err := os.MkdirTemp("", "pmsapp-soak-")
		if err != nil {
			t.Fatal(err)
		}
		c.Dir = dir
	}
	t.Logf("seed %d, data in %s", c.Seed, c.Dir)
	began := time.Now()
	done, err := Run(t.Context(), c)
	if len(done) > 0 {
		t.Logf("%d rounds in %.0f s\n%s", len(done), time.Since(began).Seconds(), Table(done))
	}
	if err != nil {
		t.Fatalf("%v\nThe nodes' logs and data are in %s; -seed %d repeats the order of the rounds.", err, c.Dir, c.Seed)
	}
	if *keep == "" {
		os.RemoveAll(c.Dir)
	}
}
