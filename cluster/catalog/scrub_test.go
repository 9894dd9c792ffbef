package catalog

import (
	"strings"
	"testing"
	"time"
)

// TestScrubbed: only the leader that serves a volume records its scrub, and that changes nothing else.
func TestScrubbed(t *testing.T) {
	m, _, v := moving(t)
	r := ScrubReport{Began: time.Unix(1e9-3, 0).UTC(), Ended: time.Unix(1e9, 0).UTC(), Seconds: 3, Request: "a command's", Bytes: 4096, Mended: 1, Unreadable: 2, Differing: 3}
	before := v()
	m.fails(ErrEpoch, Scrubbed{2, before.ID, r})
	m.fails(ErrNoVolume, Scrubbed{1, [16]byte{9}, r})
	m.fails(ErrInvalid, Scrubbed{1, before.ID, ScrubReport{Ended: r.Ended, Mended: -1}})
	m.fails(ErrInvalid, Scrubbed{1, before.ID, ScrubReport{}})
	m.fails(ErrInvalid, Scrubbed{1, before.ID, ScrubReport{Began: r.Ended, Ended: r.Began}})
	m.fails(ErrInvalid, Scrubbed{1, before.ID, ScrubReport{Ended: r.Ended, Request: strings.Repeat("x", 65)}})
	m.do(Scrubbed{1, before.ID, r})
	if got := v(); got.Scrub == nil || *got.Scrub != r || got.Version != before.Version || before.Scrub != nil {
		t.Fatalf("%+v", got)
	}
	m.do(TakeOver{before.InSync[0].Node, 2})
	m.fails(ErrNotServed, Scrubbed{2, before.ID, r})
	if got := v(); got.Scrub == nil {
		t.Fatal("a take-over forgets the scrub")
	}
}
