package share

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/nfs"
)

// TestGather: clients that were answered together, and come again within patience, are served together; who is alone soon waits for
// nobody.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, _, _ := fixture(t, 4<<20)
		commands := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.step
		}
		const delay = 5 * time.Millisecond
		w.delay.Store(int64(delay))
		mkdir := func(c *client, name string) {
			if _, err := s.Mkdir(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: name}, mode()); err != nil {
				t.Error(err)
			}
		}
		before := commands()
		var all sync.WaitGroup
		for i := range 8 {
			c := newClient(byte(10 + i))
			all.Go(func() {
				for n := range 4 {
					mkdir(c, fmt.Sprint("d", i, ".", n))
					time.Sleep(time.Duration(i) * patience / 10)
				}
			})
		}
		all.Wait()
		// The first comes alone, and the seven others while that is under way; then all eight go together, and the first's next does
		// with the last of the others'.
		if n := commands() - before; n > 6 {
			t.Errorf("%d commands for 4 x 8 directories", n)
		}
		c := newClient(9)
		for i, most := range []time.Duration{delay + patience, delay + patience, delay, delay} {
			began := time.Now()
			if mkdir(c, fmt.Sprint("alone", i)); time.Since(began) > most {
				t.Errorf("call %d of one alone took %v", i, time.Since(began))
			}
		}
		s.Close(nil)
	})
}
