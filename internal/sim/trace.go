package sim

import (
	"fmt"
	"strings"
	"time"
)

// Trace keeps the last events of a run. Lines are formatted only when somebody reads them: arguments must be values.
type Trace struct {
	w    *World
	ring []line
	n    int
	Live func(string) // if set, gets every line at once
}

type line struct {
	at     time.Duration
	who    string
	format string
	args   []any
}

func newTrace(w *World, n int) *Trace { return &Trace{w: w, ring: make([]line, max(n, 1))} }

// Add notes an event of who.
func (t *Trace) Add(who, format string, args ...any) {
	l := line{t.w.now, who, format, args}
	t.ring[t.n%len(t.ring)] = l
	t.n++
	if t.Live != nil {
		t.Live(l.String())
	}
}

func (l line) String() string {
	return fmt.Sprintf("%12.6f %-8s %s", l.at.Seconds(), l.who, fmt.Sprintf(l.format, l.args...))
}

// String gives the events that were kept, the oldest first.
func (t *Trace) String() string {
	var b strings.Builder
	first := max(0, t.n-len(t.ring))
	if first > 0 {
		fmt.Fprintf(&b, "... %d earlier events\n", first)
	}
	for i := first; i < t.n; i++ {
		b.WriteString(t.ring[i%len(t.ring)].String())
		b.WriteByte('\n')
	}
	return b.String()
}
