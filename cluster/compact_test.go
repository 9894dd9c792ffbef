package cluster

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestLogStaysShort: what a node has to apply when it starts is bounded in bytes, however few the entries are; on every node, and
// also on one that was filled by a snapshot. And it begins with all that it had.
func TestLogStaysShort(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		lead, _ := n.wait(t, 10*time.Second)
		text := strings.Repeat("x", 100<<10)
		const entries = 3 * leastBehind / 2 / (100 << 10)
		for range entries {
			if _, err := lead.propose(text); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // within a bubble
		for _, v := range n {
			if behind := v.fsm.applied.Load() - v.fsm.saved.Load(); behind >= leastBehind {
				t.Errorf("%s has %d bytes to apply when it starts", v.name, behind)
			}
		}
		for _, v := range n {
			v.stop()
			v.start()
			if got := len(v.texts()); got < entries/2 {
				t.Errorf("%s starts with %d of %d events", v.name, got, entries)
			}
			time.Sleep(5 * time.Second) // within a bubble
			if got := len(v.texts()); got != entries {
				t.Errorf("%s has %d of %d events", v.name, got, entries)
			}
			if applied := v.fsm.applied.Load(); applied >= leastBehind {
				t.Errorf("%s applied %d bytes when it started", v.name, applied)
			}
		}
	})
}
