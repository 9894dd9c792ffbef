package cluster

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// TestElection: the leader dies again and again; another leads within the time that the failover targets leave for it, in a
// higher term, with everything that was committed.
func TestElection(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		var took []time.Duration
		var said []string
		term := uint64(0)
		for round := range 20 {
			lead, _ := n.wait(t, 10*time.Second)
			if lead.raft.CurrentTerm() <= term {
				t.Fatalf("term %d after %d", lead.raft.CurrentTerm(), term)
			}
			term = lead.raft.CurrentTerm()
			text := fmt.Sprint(round)
			if _, err := lead.propose(text); err != nil {
				t.Fatal(err)
			}
			said = append(said, text)
			time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // within a bubble
			lead.stop()
			next, d := n.wait(t, 10*time.Second)
			if next == lead {
				t.Fatal("the dead leads")
			}
			took = append(took, d)
			if got := next.texts(); !slices.Equal(got, said) {
				t.Fatalf("the new leader has %q, committed was %q", got, said)
			}
			lead.start()
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond) // within a bubble
		}
		slices.Sort(took)
		t.Logf("elections took %v at the median, %v at most", took[len(took)/2], took[len(took)-1])
		if took[len(took)-1] > 4*time.Second {
			t.Error("an election took longer than a failover may")
		}
	})
}

// TestTransfer: leadership goes to the node that is named, with everything committed, in less than an election; one that is cut off
// does not get it, and the leader goes on.
func TestTransfer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		for round := range 10 {
			lead, _ := n.wait(t, 10*time.Second)
			if _, err := lead.propose(fmt.Sprint(round)); err != nil {
				t.Fatal(err)
			}
			to := n[r.IntN(3)]
			if to == lead {
				continue
			}
			began := time.Now()
			if err := lead.raft.LeadershipTransferToServer(to.server().ID, to.server().Address).Error(); err != nil {
				t.Fatal(err)
			}
			next, _ := n.wait(t, time.Second)
			if next != to || time.Since(began) > 300*time.Millisecond {
				t.Fatalf("%s leads after %v, it was given to %s", next.name, time.Since(began), to.name)
			}
			if got := next.texts(); got[len(got)-1] != fmt.Sprint(round) {
				t.Fatal(got)
			}
		}
		lead, _ := n.wait(t, 10*time.Second)
		to := n[(slices.Index(n, lead)+1)%3]
		for _, o := range n {
			w.set(o.name, to.name, true)
			w.set(to.name, o.name, true)
		}
		if err := lead.raft.LeadershipTransferToServer(to.server().ID, to.server().Address).Error(); err == nil {
			t.Fatal("a node that is cut off was given the leadership")
		}
		if got, _ := n.wait(t, 5*time.Second); got == to {
			t.Fatal("a node that is cut off leads")
		}
	})
}

// TestHangIsSeenBehindAnother: one write transaction ends, and another, which had waited for it, hangs: that is seen, from the moment
// on at which it is looked for.
func TestHangIsSeenBehindAnother(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	began := time.Now()
	if s.hanging(began) != 0 {
		t.Fatal("nothing is under way")
	}
	var work sync.WaitGroup
	first, second, in := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
	for _, end := range []chan struct{}{first, second} {
		work.Go(func() {
			if err := s.update(func(*bbolt.Tx) error { in <- struct{}{}; <-end; return nil }); err != nil {
				t.Error(err)
			}
		})
		if end == first {
			<-in
		}
	}
	close(first)
	<-in
	waitUntil := time.Now().Add(20 * time.Millisecond)
	for time.Now().Before(waitUntil) {
		runtime.Gosched()
	}
	if d := s.hanging(began); d < 20*time.Millisecond {
		t.Errorf("the second hangs, and %v is seen", d)
	}
	if d := s.hanging(time.Now()); d > 15*time.Millisecond {
		t.Errorf("what was before the moment counts: %v", d)
	}
	close(second)
	work.Wait()
	if s.hanging(began) != 0 {
		t.Error("nothing is under way any more")
	}
}

// TestBackAtAnotherAddress: a voter comes back at another address; once the leader knows it, it has the log soon, under the same leader.
func TestBackAtAnotherAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		lead, _ := n.wait(t, 10*time.Second)
		term := lead.raft.CurrentTerm()
		v := n[(slices.Index(n, lead)+1)%3]
		v.stop()
		for i := range 10 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // within a bubble
		}
		v.name = "elsewhere"
		v.start()
		if err := lead.raft.AddVoter(v.server().ID, v.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // within a bubble
		if got := v.texts(); len(got) != 10 {
			t.Fatalf("it has %d of 10", len(got))
		}
		if lead.raft.State() != raft.Leader || lead.raft.CurrentTerm() != term {
			t.Error("that took an election")
		}
	})
}
