package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// paced writes n times to members A and B, whose disks take a and b for each.
func (s *script) paced(n int, a, b time.Duration) {
	for range n {
		s.command([]string{"write", "w", "0", "4k"})
		first, second := fmt.Sprintf("c%d", s.sent-1), fmt.Sprintf("c%d", s.sent)
		if b < a {
			first, second = second, first
		}
		s.command([]string{"tick", min(a, b).String()})
		s.command([]string{"ok", first})
		s.command([]string{"tick", (max(a, b) - min(a, b)).String()})
		s.command([]string{"ok", second})
		if strings.Contains(s.out.String(), "member slow") {
			return // writes do not go to both any more
		}
	}
}

// TestSlowMember: a member leaves whose writes take far longer than the other's for three windows in a row, and only then.
func TestSlowMember(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		steps func(*script)
		who   string // of "member slow"
	}{
		{"follower", func(s *script) { s.paced(250, ms, 200*ms) }, "B"},
		{"leader's own", func(s *script) { s.paced(250, 200*ms, ms) }, "A"},
		{"both", func(s *script) { s.paced(500, 100*ms, 200*ms) }, ""},
		{"slower, but quick enough", func(s *script) { s.paced(4000, ms, 40*ms) }, ""},
		{"too few to tell", func(s *script) { s.paced(30, ms, 2*time.Second) }, ""},
		{"now and then", func(s *script) {
			for range 6 {
				s.paced(80, ms, 200*ms) // not three windows
				s.paced(3000, ms, 8*ms)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			s.command([]string{"open", "self=A", "members=A,B"})
			s.command([]string{"ok", "c1", "c2"})
			c.steps(s)
			got := ""
			for l := range strings.Lines(s.out.String()) {
				if rest, ok := strings.CutPrefix(l, "notice: member slow "); ok {
					got += rest[:1]
				}
			}
			if got != c.who {
				t.Fatalf("slow is %q, not %q", got, c.who)
			}
		})
	}
}
