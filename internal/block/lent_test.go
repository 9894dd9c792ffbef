package block_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"pmsapp/internal/block"
)

type counted struct{ n *atomic.Int64 }

func (c counted) Run() { c.n.Add(1) }

// TestLent: a job is taken once, between Open and Run only, and then it is run.
func TestLent(t *testing.T) {
	var none *block.Lent
	var n atomic.Int64
	l := new(block.Lent)
	if none.Offer(counted{&n}) || l.Offer(counted{&n}) {
		t.Error("it takes a job before it is open")
	}
	l.Run()
	l.Open()
	if !l.Offer(counted{&n}) || l.Offer(counted{&n}) {
		t.Error("it takes one job")
	}
	l.Run()
	l.Run()
	if n.Load() != 1 || l.Offer(counted{&n}) {
		t.Error(n.Load())
	}
}

// TestLentRace: whoever offers at whatever moment, the jobs taken are those run.
func TestLentRace(t *testing.T) {
	l := new(block.Lent)
	var taken, run atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l.Offer(counted{&run}) {
					taken.Add(1)
				}
			}
		})
	}
	for range 20000 {
		l.Open()
		l.Run()
	}
	close(stop)
	wg.Wait()
	if taken.Load() != run.Load() {
		t.Errorf("%d taken, %d run", taken.Load(), run.Load())
	}
}
