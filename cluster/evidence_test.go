package cluster

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestVoteIsOfAnIdentity: b was away when an entry was committed by a and c; c comes back empty under a new identity at its old address,
// and a dies before it has filled it. Raft gives the vote of a server that knows nothing to anybody: b must not get it as that of the old
// c, or the entry is lost (invariants 9, 6, 2).
func TestVoteIsOfAnIdentity(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		a, _ := n.wait(t, 10*time.Second)
		i := slices.Index(n, a)
		b, c := n[(i+1)%3], n[(i+2)%3]
		b.stop()
		if _, err := a.propose("acknowledged"); err != nil {
			t.Fatal(err)
		}
		c.stop()
		a.stop()
		newVoter(t, w, c.name).start()
		b.start()
		time.Sleep(10 * time.Second) // within a bubble
		if b.raft.State() == raft.Leader {
			t.Fatalf("b leads by the vote of an empty node, with %q", b.texts())
		}
		a.start()
		lead, _ := n[i:i+1].wait(t, 10*time.Second)
		if got := lead.texts(); !slices.Equal(got, []string{"acknowledged"}) {
			t.Fatalf("committed was one entry, and the leader has %q", got)
		}
	})
}

// TestNoDoubtAfterASnapshot: a follower whose log was behind the leader's, and that was filled by a snapshot, has a sound store.
func TestNoDoubtAfterASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, true)
		a, _ := n.wait(t, 10*time.Second)
		for i := range 3 {
			if _, err := a.propose(fmt.Sprint("before", i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // within a bubble
		v := n[(slices.Index(n, a)+1)%3]
		v.stop()
		for i := range 200 {
			if _, err := a.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // within a bubble
		v.small = false             // its trailing log is longer than what it has
		v.start()
		time.Sleep(5 * time.Second) // within a bubble
		if _, err := a.propose("after"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // within a bubble
		if _, err := v.store.sound(newFSM(func() {}, slog.New(slog.DiscardHandler))); err != nil || len(v.texts()) != 204 {
			t.Fatalf("%d events, %v", len(v.texts()), err)
		}
	})
}

// TestEvidence: every node remembers the term and the newest index of each other, the leader's and the followers' (invariant 9).
func TestEvidence(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		for round := range 3 {
			a, _ := n.wait(t, 10*time.Second)
			for i := range 20 {
				if _, err := a.propose(fmt.Sprint(round, i)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second) // within a bubble
			for _, v := range n {
				for _, o := range n {
					if v == o || v != a && o != a { // followers do not speak with each other
						continue
					}
					e := v.trans.about(o.server().ID)
					if e.Term != o.raft.CurrentTerm() || e.Index != o.raft.LastIndex() || e.Within != e.Term {
						t.Errorf("%s has term %d and index %d, and %s knows %+v", o.name, o.raft.CurrentTerm(), o.raft.LastIndex(), v.name, e)
					}
				}
			}
			a.stop()
			n.wait(t, 10*time.Second)
			a.start()
			time.Sleep(3 * time.Second) // within a bubble
		}
	})
}

func TestEvidenceOfAnEarlierTerm(t *testing.T) {
	e := evidence{}.with(evidence{Term: 3, Index: 100, Within: 3})
	if e = e.with(evidence{Term: 4}); e != (evidence{4, 100, 3}) {
		t.Error("a vote has no index:", e)
	}
	if e = e.with(evidence{Term: 5, Index: 90, Within: 5}); e != (evidence{5, 90, 5}) {
		t.Error("what was cut off since is no evidence:", e)
	}
	if e = e.with(evidence{Term: 3, Index: 120, Within: 3}); e != (evidence{5, 90, 5}) {
		t.Error("nor is a late message:", e)
	}
}

// TestVoteIsNoEvidenceOfAnIndex: what a candidate has may be cut off by the winner of the same term.
func TestVoteIsNoEvidenceOfAnIndex(t *testing.T) {
	w := &watchedTransport{seen: map[raft.ServerID]evidence{}}
	w.heard(&raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("a")}, Term: 7, LastLogIndex: 100})
	w.heard(&raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("b")}, Term: 7, PrevLogEntry: 90})
	if a, b := w.about("a"), w.about("b"); a != (evidence{Term: 7}) || b != (evidence{7, 90, 7}) {
		t.Errorf("%+v, %+v", a, b)
	}
}
