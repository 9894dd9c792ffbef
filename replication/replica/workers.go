package replica

import (
	"sync"

	"pmsapp/internal/block"
)

// workers run jobs, at most so many at a time. What waits is bounded by those who submit: a mirror has bounds.
type workers struct {
	limit int
	work  sync.WaitGroup
	lents sync.Pool // of *lentJob

	mu      sync.Mutex // guards what follows
	waiting []job
	head    int
	count   int // of goroutines
	idle    int
	wake    *sync.Cond
	closed  bool
}

func newWorkers(limit int) *workers {
	w := &workers{limit: limit}
	w.wake = sync.NewCond(&w.mu)
	return w
}

func (w *workers) run(j job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.push(j)
}

// tryRun runs a job, unless it would have to wait for the end of others.
func (w *workers) tryRun(j job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Whoever is idle found nothing waiting, and since then each job that came has woken or begun a goroutine: none is ahead that has not.
	if w.idle == 0 && w.count == w.limit {
		return false
	}
	w.push(j)
	return true
}

// push is called with mu.
func (w *workers) push(j job) {
	if w.head > len(w.waiting)/2 && len(w.waiting) == cap(w.waiting) { // what was taken makes room
		n := copy(w.waiting, w.waiting[w.head:])
		clear(w.waiting[n:])
		w.waiting, w.head = w.waiting[:n], 0
	}
	w.waiting = append(w.waiting, j)
	switch {
	case w.idle > 0:
		w.idle-- // here, so that the next job is not left to the same one, which may be long in this one
		w.wake.Signal()
	case w.count < w.limit:
		w.count++
		w.work.Go(w.loop)
	}
}

// crowded tells whether jobs wait although all goroutines are at work.
func (w *workers) crowded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.idle == 0 && w.count == w.limit && w.head < len(w.waiting)
}

// lentJob is a job that the goroutine runs that has brought it.
type lentJob struct {
	w *workers
	j job
}

// lend has a job run by who has brought it, beyond the limit, or returns false. Its session is in use until it has ended, so w is not
// closed before.
func (w *workers) lend(l *block.Lent, j job) bool {
	x, ok := w.lents.Get().(*lentJob)
	if !ok {
		x = new(lentJob)
	}
	x.w, x.j = w, j
	w.work.Add(1)
	if !l.Offer(x) {
		w.work.Done()
		w.lents.Put(x)
		return false
	}
	return true
}

// Run implements block.Job.
func (x *lentJob) Run() {
	w, j := x.w, x.j
	*x = lentJob{}
	w.lents.Put(x)
	j.run()
	w.work.Done()
}

func (w *workers) loop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.head == len(w.waiting) {
			if w.closed {
				return
			}
			w.idle++
			w.wake.Wait()
		}
		j := w.waiting[w.head]
		w.waiting[w.head] = job{}
		if w.head++; w.head == len(w.waiting) {
			w.waiting, w.head = w.waiting[:0], 0
		}
		w.mu.Unlock()
		j.run()
		w.mu.Lock()
	}
}

// close ends the goroutines when nothing waits any more.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.wake.Broadcast()
	w.mu.Unlock()
	w.work.Wait()
}
