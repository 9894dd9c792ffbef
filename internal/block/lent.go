package block

import "sync"

// Job is work that waits for a disk.
type Job interface{ Run() }

// Lent is a goroutine that has brought a request and has nothing else to do until that has ended: it may carry the request
// out itself, so that nothing is handed to another goroutine and back. Who lends it opens it before Submit, and calls
// Run after Submit has returned, without any lock. A device that would hand a job of the request to a worker offers it
// before; one that never offers is as right.
//
// A job that was taken is run, whatever becomes of the request: Run always follows Open. Between the two nothing may wait.
type Lent struct {
	mu   sync.Mutex
	open bool
	job  Job
}

// Open makes it take the next job that is offered.
func (l *Lent) Open() {
	l.mu.Lock()
	l.open = true
	l.mu.Unlock()
}

// Offer gives it a job, or returns false, and then somebody else has to run it. l may be nil.
func (l *Lent) Offer(j Job) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		return false
	}
	l.open, l.job = false, j
	return true
}

// Run takes no further job, and runs the one that it has taken. That may take as long as a disk hangs.
func (l *Lent) Run() {
	l.mu.Lock()
	j := l.job
	l.open, l.job = false, nil
	l.mu.Unlock()
	if j != nil {
		j.Run()
	}
}
