package guest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/local"
)

// asked is how often Linux' lock manager asks again for a lock that it waits for (fs/lockd: 30 s), and some time to be answered.
const asked = 45 * time.Second

// holds waits until a program of hold has its lock.
func (l *load) holds(limit time.Duration) {
	l.m.t.Helper()
	if err := local.Wait(l.m.t.Context(), l.m.name+", "+l.what+" to have its lock", limit, func(context.Context) (bool, error) {
		l.alive()
		return !l.last().IsZero(), nil
	}); err != nil {
		l.m.t.Fatal(err)
	}
}

// free tells whether a lock can be had, without waiting for it.
func (m *machine) free(file, kind string) bool {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	code, err := m.try(ctx, fmt.Sprintf("/host/inside hold -try -file %s -kind %s 2>&1", file, kind), &out)
	if code < 0 || code > 0 && !strings.Contains(out.String(), "temporarily unavailable") {
		m.t.Fatal(err, out.String())
	}
	return code == 0
}

// TestGuestLocks: locks of one Linux client keep another out while leaders die; who waits gets the lock when it is free, also under
// a leader that has never heard of him; those that share one share it. A client that says that it was started anew has none.
func TestGuestLocks(t *testing.T) {
	img, yes := outside(t)
	if yes {
		return
	}
	newBridge(t)
	c := newCluster(t, true)
	c.newShare(1 << 30)
	a, b := newMachine(t, img, 1), newMachine(t, img, 2)
	a.mount()
	b.mount()
	kinds := []string{"flock", "fcntl"}
	for round := range 2 * int(faults) {
		how, waits := fault(round)%faults, round < int(faults) // with somebody who waits at the leader's death, and with nobody
		t.Logf("%v; somebody waits meanwhile: %v", how, waits)
		var held, waiting, sharing []*load
		for _, k := range kinds {
			held = append(held, a.start("held-"+k, "hold -file /mnt/s/%s -kind %s", k, k))
			held[len(held)-1].holds(time.Minute)
			for _, m := range []*machine{a, b} {
				sharing = append(sharing, m.start("shared-"+k, "hold -file /mnt/s/shared-%s -kind %s -shared", k, k))
			}
		}
		wait := func() {
			for _, k := range kinds {
				waiting = append(waiting, b.start("waiting-"+k, "hold -file /mnt/s/%s -kind %s", k, k))
			}
		}
		if waits {
			wait()
		}
		for _, l := range sharing {
			l.holds(time.Minute)
		}
		_, back := c.kill(how)
		for _, k := range kinds {
			if b.free("/mnt/s/"+k, k) || b.free("/mnt/s/shared-"+k, k) || a.free("/mnt/s/shared-"+k, k) {
				t.Fatalf("%s: a lock was lost with its leader", k)
			}
		}
		back()
		c.whole()
		if !waits {
			wait()
		}
		for _, l := range waiting {
			if l.alive(); !l.last().IsZero() {
				t.Fatalf("%s: two have the lock", l.what)
			}
		}
		for _, l := range append(held, sharing...) {
			l.stop()
		}
		began := time.Now()
		for i, l := range waiting {
			l.holds(asked)
			if a.free("/mnt/s/"+kinds[i], kinds[i]) {
				t.Fatalf("%s: two have the lock", l.what)
			}
			l.stop()
		}
		t.Logf("those who waited had their locks within %v", time.Since(began).Round(100*time.Millisecond))
	}
	for _, k := range kinds {
		b.start("lost-"+k, "hold -file /mnt/s/%s -kind %s", k, k).holds(time.Minute)
		if a.free("/mnt/s/"+k, k) {
			t.Fatal("two have the lock: ", k)
		}
	}
	b.run(time.Minute, "sm-notify -f") // what a client does when it has started
	for _, k := range kinds {
		if err := local.Wait(t.Context(), "the locks of a client that has started anew to be free", 30*time.Second, func(context.Context) (bool, error) {
			return a.free("/mnt/s/"+k, k), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	a.noNFSErrors()
}
