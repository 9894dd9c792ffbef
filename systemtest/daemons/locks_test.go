package daemons

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// ticket is what a lock block holds: a number that grows by one with each holder, and a nonce that says who it is.
type ticket struct {
	number, nonce uint64
}

func (k ticket) block() []byte {
	b := make([]byte, 512)
	binary.BigEndian.PutUint64(b, k.number)
	binary.BigEndian.PutUint64(b[8:], k.nonce)
	return b
}

// locks are the holders of all numbers of a lock block.
type locks struct {
	mu      sync.Mutex
	holders map[uint64]uint64 // nonce by number
	good    int               // answered GOOD
	found   int               // told MISCOMPARE, and found in the block: must not be (invariant 18)
}

func (l *locks) won(t *testing.T, k ticket, count *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*count++
	if other, twice := l.holders[k.number]; twice && other != k.nonce {
		t.Errorf("two hosts have won number %d", k.number)
	}
	l.holders[k.number] = k.nonce
}

// contend takes the lock again and again by COMPARE AND WRITE, against others that do the same.
func (l *locks) contend(ctx context.Context, t *testing.T, d *initiator.Disk) {
	cdb := make([]byte, 16)
	cdb[0], cdb[13] = 0x89, 1
	var mine ticket // tried, and not known to be won
	for ctx.Err() == nil {
		block := make([]byte, 512)
		if err := d.ReadAt(ctx, block, 0); err != nil {
			if ctx.Err() == nil {
				t.Errorf("reading the lock: %v", err)
			}
			return
		}
		now := ticket{binary.BigEndian.Uint64(block), binary.BigEndian.Uint64(block[8:])}
		if !bytes.Equal(block, now.block()) {
			t.Errorf("the lock block is torn: %x", block)
			return
		}
		if mine != (ticket{}) && now == mine {
			l.won(t, mine, &l.found)
		}
		mine = ticket{now.number + 1, rand.Uint64()}
		_, err := d.Command(ctx, cdb, append(now.block(), mine.block()...), nil)
		var refused *initiator.StatusError
		switch {
		case err == nil:
			l.won(t, mine, &l.good)
			mine = ticket{}
		case errors.As(err, &refused) && refused.Sense.Key == 0xe:
		case ctx.Err() == nil:
			t.Errorf("COMPARE AND WRITE: %v", err)
			return
		}
	}
}

// TestLocks: hosts take a lock by COMPARE AND WRITE while leaders are killed. No number has two winners, none that was won is
// lost, and nobody who holds the lock was told otherwise, though leaders have died before their answer (invariant 18).
func TestLocks(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	l := &locks{holders: map[uint64]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	stop := func() { cancel(); work.Wait() }
	defer stop()
	var hosts [4]*initiator.Disk
	for i := range hosts {
		hosts[i] = newMember(t, c, lun, i).disk
		work.Go(func() { l.contend(ctx, t, hosts[i]) })
	}
	wins := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.good
	}
	for round := range *failovers {
		st := settled(t, c)
		before := wins()
		if err := c.Kill(c.Index(st.Leader)); err != nil {
			t.Fatal(err)
		}
		if err := local.Wait(t.Context(), "hosts to go on after the failover", 30*time.Second, func(context.Context) (bool, error) {
			return wins() > before+20 || t.Failed(), nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(c.Index(st.Leader)); err != nil {
			t.Fatal(err)
		}
		t.Logf("failover %d: %d wins", round+1, wins())
	}
	settled(t, c)
	before := wins()
	if err := local.Wait(t.Context(), "hosts to go on", 30*time.Second, func(context.Context) (bool, error) { return wins() > before+20 || t.Failed(), nil }); err != nil {
		t.Fatal(err)
	}
	stop()
	block := make([]byte, 512)
	if err := hosts[0].ReadAt(t.Context(), block, 0); err != nil {
		t.Fatal(err)
	}
	last := binary.BigEndian.Uint64(block)
	for n := range l.holders {
		if n > last {
			t.Errorf("number %d was won, and the block has %d", n, last)
		}
	}
	if l.found > 0 {
		t.Errorf("%d hosts were told that they had not won, and had", l.found)
	}
	// Nobody may have learned that he won where an answer was lost and another came first, or at the end.
	if unknown := int(last) - len(l.holders); unknown > 4*(*failovers+1) {
		t.Errorf("%d numbers were won by nobody", unknown)
	}
}
