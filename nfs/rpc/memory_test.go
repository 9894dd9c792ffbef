package rpc

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		m := newMemory(100)
		a, b, c, d, e := &conn{}, &conn{}, &conn{}, &conn{}, &conn{}
		for _, x := range []*conn{a, b, c, d} {
			if err := m.take(ctx, x, 20); err != nil {
				t.Fatal(err)
			}
		}
		if m.try(a, 6) {
			t.Error("more than a connection's share")
		}
		var mu sync.Mutex
		var order []string
		wait := func(name string, x *conn, n int64) {
			go func() {
				if err := m.take(ctx, x, n); err != nil {
					name += "!"
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		wait("own share", a, 6)
		wait("large", e, 25)
		wait("small", b, 1)
		if len(order) != 0 {
			t.Fatal(order)
		}
		m.give(c, 20) // enough for the large one, past which nothing small goes
		synctest.Wait()
		m.give(d, 20)
		synctest.Wait()
		if len(order) != 2 || order[0] == "own share" || order[1] == "own share" {
			t.Fatal(order)
		}
		cancel(errors.New("gone"))
		synctest.Wait()
		if len(order) != 3 || order[2] != "own share!" {
			t.Fatal(order)
		}
		m.give(a, 20)
		m.give(b, 21)
		m.give(e, 25)
		if m.left != 100 || len(m.have) != 0 || len(m.waiting) != 0 {
			t.Errorf("%+v", m)
		}
	})
}
