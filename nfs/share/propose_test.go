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
		synctest.Wait()
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
		c := newClient(9)
		for i := range 2 { // whatever went together while the share was opened
			mkdir(c, fmt.Sprint("before", i))
		}
		// Eight come while a command is under way, so they go together.
		var all sync.WaitGroup
		all.Go(func() { mkdir(newClient(8), "first") })
		synctest.Wait()
		clients := make([]*client, 8)
		for i := range clients {
			clients[i] = newClient(byte(10 + i))
			all.Go(func() { mkdir(clients[i], fmt.Sprint("together", i)) })
		}
		all.Wait()
		before := commands()
		for i, c := range clients {
			all.Go(func() {
				time.Sleep(time.Duration(i) * patience / 10)
				mkdir(c, fmt.Sprint("again", i))
			})
		}
		all.Wait()
		if n := commands() - before; n != 1 {
			t.Errorf("%d commands for eight that come one shortly after the other", n)
		}
		for i, most := range []time.Duration{delay + patience, delay + patience, delay, delay} {
			began := time.Now()
			if mkdir(c, fmt.Sprint("alone", i)); time.Since(began) > most {
				t.Errorf("call %d of one alone took %v", i, time.Since(began))
			}
		}
		s.Close(nil)
	})
}
