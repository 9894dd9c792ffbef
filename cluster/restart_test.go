package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestRestarts: voters end and come back at any moment, and ways are cut, while commands are proposed. What was committed is in every
// log, once, in one order, and a proposal that was said to have failed may only be one that was never taken.
func TestRestarts(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) { inBubble(t, restarts) })
	}
}

func restarts(t *testing.T, r *rand.Rand) {
	w := newWires()
	defer w.stop()
	n := formVoters(t, w, true)
	committed := map[string]bool{}
	const steps = 400
	for step := range steps {
		if lead := n.leader(); lead != nil {
			text := fmt.Sprint(step)
			_, err := lead.propose(text)
			switch {
			case err == nil:
				committed[text] = true
			case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipLost),
				errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			default:
				t.Fatal(err)
			}
		}
		switch v := n[r.IntN(3)]; r.IntN(15) {
		case 0, 5:
			if v.runs() {
				was := v.store.count()
				v.stop()
				v.written = was
			} else if v.start(); v.store.count() < v.written {
				t.Fatalf("%s was written %d times, and now it says %d times: it would give up its identity", v.name, v.written, v.store.count())
			}
		case 1:
			w.set(v.name, n[r.IntN(3)].name, true)
		case 2, 3, 4:
			for _, a := range n {
				w.set(v.name, a.name, false)
				w.set(a.name, v.name, false)
			}
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // within a bubble
	}
	for _, a := range n {
		for _, b := range n {
			w.set(a.name, b.name, false)
		}
		if !a.runs() {
			a.start()
		}
	}
	lead, _ := n.wait(t, 20*time.Second)
	if _, err := lead.propose("last"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second) // within a bubble
	want := lead.texts()
	seen := map[string]int{}
	for _, s := range want {
		seen[s]++
	}
	for s := range committed {
		if seen[s] != 1 {
			t.Errorf("%q was committed, and is there %d times", s, seen[s])
		}
	}
	for _, v := range n {
		if got := v.texts(); !slices.Equal(got, want) {
			t.Errorf("%s has %d events, the leader %d, or another order", v.name, len(got), len(want))
		}
	}
	t.Logf("%d committed of %d", len(committed), steps)
}

// TestEmptyNode: a node with an empty disk under a new identity is filled by a snapshot, as a non-voter, and votes then; the old
// identity is taken out before: Raft has one server at an address.
func TestEmptyNode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, true)
		lead, _ := n.wait(t, 10*time.Second)
		for i := range 200 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // within a bubble: snapshots are taken
		lead, _ = n.wait(t, 10*time.Second)
		if first, err := lead.store.FirstIndex(); err != nil || first < 50 {
			t.Fatalf("the log was not cut: it begins at %d (%v)", first, err)
		}
		lost := n[(slices.Index(n, lead)+1+r.IntN(2))%3]
		lost.stop()
		fresh := newVoter(t, w, lost.name)
		fresh.small = true
		fresh.start()
		if err := lead.raft.RemoveServer(lost.server().ID, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		if err := lead.raft.AddNonvoter(fresh.server().ID, fresh.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // within a bubble
		if got := fresh.texts(); len(got) != 200 || got[199] != "199" {
			t.Fatalf("the empty node has %d of 200", len(got))
		}
		if first, err := fresh.store.FirstIndex(); err != nil || first == 1 {
			t.Fatalf("it was filled by the log, from %d on (%v)", first, err)
		}
		if err := lead.raft.AddVoter(fresh.server().ID, fresh.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		n = append(slices.DeleteFunc(slices.Clone(n), func(v *voter) bool { return v == lost }), fresh)
		// It is one half of a quorum now.
		other := n[0]
		if other == lead {
			other = n[1]
		}
		other.stop()
		if _, err := lead.propose("with the new one"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // within a bubble
		if got := fresh.texts(); got[len(got)-1] != "with the new one" {
			t.Fatal("the new voter lacks what it has helped to commit")
		}
	})
}

// TestBackAfterLong: a node that was away for minutes has the log within a second of its return (patience.go), and with it the
// cluster survives the loss of another at once.
func TestBackAfterLong(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		lead, _ := n.wait(t, 10*time.Second)
		away := n[(slices.Index(n, lead)+1)%3]
		away.stop()
		for i := range 10 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second) // within a bubble
		}
		away.start()
		time.Sleep(time.Second) // within a bubble
		if got := away.texts(); len(got) != 10 {
			t.Fatalf("a second after its return it has %d of 10", len(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for _, v := range n {
			if v != away && v != lead {
				v.stop()
			}
		}
		for ctx.Err() == nil {
			if _, err := lead.propose("and on"); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond) // within a bubble
		}
		t.Fatal("two of three do not go on")
	})
}
