package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"pmsapp/systemtest/loop"
	"pmsapp/systemtest/program"
)

var deviceRounds = flag.Int("device-rounds", 0, "how many rounds with pools on block devices; 0: one of each kind, in order")

// TestSoakOnDevices has the nodes' pools on block devices.
func TestSoakOnDevices(t *testing.T) {
	dir := t.TempDir()
	c := Config{Binary: program.Build(t), Dir: filepath.Join(dir, "cluster"), Replicas: *replicas, Size: 64 << 20, Seed: *seed, Out: testWriter{t},
		Kinds: []Kind{LeaderKilled, FollowerKilled, AllKilled, Move, BitFlip}, Rounds: *deviceRounds}
	if *race {
		c.Binary = program.BuildRace(t)
	}
	if c.Rounds == 0 {
		c.Rounds, c.Ordered = len(c.Kinds), true
	} else {
		c.Kinds = append(c.Kinds, FollowerStopped, LeaderStopped, HandOver, Terminated, Grow)
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	for i := range 3 {
		name := filepath.Join(dir, fmt.Sprintf("disk%d", i+1))
		c.Devices = append(c.Devices, loop.New(t, name, name+".image", 384<<20).Path)
	}
	done, err := Run(t.Context(), c)
	t.Logf("seed %d\n%s", c.Seed, Table(done))
	if err != nil {
		t.Fatalf("%v (-seed %d)", err, c.Seed)
	}
}
