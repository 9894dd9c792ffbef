package demo

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// teller tells a person what happens, and shows that something does while it takes a while. On a terminal the line that is
// in progress is written again and again; elsewhere only its last state is.
type teller struct {
	out      io.Writer
	terminal bool
	began    time.Time

	mu   sync.Mutex
	open bool // a line in progress is on the screen
}

func newTeller(out io.Writer) *teller {
	t := &teller{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			t.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return t
}

// say prints a line, with the seconds since the beginning.
func (t *teller) say(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprintf(t.out, "%6.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, a...))
}

// plain prints a line as it is.
func (t *teller) plain(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprintf(t.out, format+"\n", a...)
}

func (t *teller) clear() {
	if t.open {
		fmt.Fprint(t.out, "\r\x1b[K")
		t.open = false
	}
}

// watch shows what state says, several times a second on a terminal and every few seconds elsewhere, until the function
// that it returns is called.
func (t *teller) watch(state func() string) (stop func()) {
	every := 150 * time.Millisecond
	if !t.terminal {
		every = 3 * time.Second
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if !t.terminal {
				t.say("  ... %s", state())
				continue
			}
			t.mu.Lock()
			fmt.Fprintf(t.out, "\r\x1b[K%6.1fs    %s", time.Since(t.began).Seconds(), state())
			t.open = true
			t.mu.Unlock()
		}
	}()
	return func() {
		close(quit)
		<-done
		t.mu.Lock()
		t.clear()
		t.mu.Unlock()
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
