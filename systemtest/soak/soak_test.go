package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/systemtest/powerdisk"
	"pmsapp/systemtest/program"
)

var (
	rounds   = flag.Int("rounds", 0, "how many rounds; 0: one of each kind, in order")
	kinds    = flag.String("kinds", "", "only these kinds of rounds, with commas")
	seed     = flag.Uint64("seed", 0, "0: a new one")
	replicas = flag.Int("replicas", 2, "of the volume")
	race     = flag.Bool("races", false, "build the daemons with the race detector")
	limit    = flag.Duration("for", 0, "begin no round later; 0: no limit")
	away     = flag.Duration("away", 10*time.Minute, "the longest absence of a node")
	least    = flag.Duration("least", 10*time.Second, "the shortest")
	memory   = flag.Bool("memory", false, "the volume's durability is memory")
	rawPools = flag.Bool("raw", false, "the pools are the disks themselves, not file systems on them: without the kind that needs other files there")
	keep     = flag.String("dir", "", "for the nodes' data; by default it is removed after a success")
)

// testWriter is the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestSoak is `make soak`: any kinds of rounds at random. With its defaults it is a part of `make test`: one round of each kind that needs
// no disks.
func TestSoak(t *testing.T) {
	c := Config{Rounds: *rounds, Kinds: Kinds()}
	if c.Rounds == 0 {
		c.Rounds, c.Ordered = len(c.Kinds), true
	} else if err := powerdisk.Usable(); err != nil {
		fmt.Printf("left out: %v: %v\n", DiskKinds(), err)
	} else {
		c.Kinds = append(c.Kinds, DiskKinds()...)
	}
	if *rawPools {
		c.Kinds = slices.DeleteFunc(c.Kinds, Kind.ofFiles)
	}
	if *kinds != "" {
		c.Kinds = nil
		for k := range strings.SplitSeq(*kinds, ",") {
			c.Kinds = append(c.Kinds, Kind(k))
		}
	}
	soakTest(t, c)
}

// TestSoakDisks is one round of each kind that needs disks.
func TestSoakDisks(t *testing.T) {
	if err := powerdisk.Usable(); err != nil {
		t.Skip(err)
	}
	soakTest(t, Config{Kinds: DiskKinds(), Rounds: len(DiskKinds()), Ordered: true})
}

// powerKinds are those that need no files of a replica.
func powerKinds() []Kind { return []Kind{PowerLeader, PowerAll, PowerFollower, PowerAll} }

// TestSoakMemory has the power fail under a volume of the durability memory.
func TestSoakMemory(t *testing.T) {
	if err := powerdisk.Usable(); err != nil {
		t.Skip(err)
	}
	soakTest(t, Config{Kinds: powerKinds(), Rounds: len(powerKinds()), Ordered: true, Memory: true})
}

// TestSoakRaw has it fail under pools on block devices, and those devices fail.
func TestSoakRaw(t *testing.T) {
	if err := powerdisk.Usable(); err != nil {
		t.Skip(err)
	}
	k := append(powerKinds(), BadSectors, BadWrites, BadFlush, BitFlip)
	soakTest(t, Config{Kinds: k, Rounds: len(k), Ordered: true, Raw: true})
}

func soakTest(t *testing.T, c Config) {
	c.Memory, c.Raw = c.Memory || *memory, c.Raw || *rawPools
	c.Dir, c.Replicas, c.Size, c.Seed, c.Away, c.Least, c.For, c.Out = *keep, *replicas, 64<<20, *seed, *away, *least, *limit, testWriter{t}
	if c.Binary == "" {
		c.Binary = program.Build(t)
	}
	if *race {
		c.Binary = program.BuildRace(t)
	}
	if slices.ContainsFunc(c.Kinds, Kind.onDisks) {
		c.Size = 16 << 20 // each round reads and scrubs all of it
		c.Disks = filepath.Join(t.TempDir(), "serve")
		if out, err := exec.Command("go", "build", "-o", c.Disks, "pmsapp/systemtest/powerdisk/serve").CombinedOutput(); err != nil {
			t.Fatalf("building the disks' server: %v: %s", err, out)
		}
	}
	if !c.Ordered {
		c.Out = os.Stdout
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
