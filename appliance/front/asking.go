package front

import (
	"sync"
	"time"

	"pmsapp/target/scsi"
)

// Of questions that describe a unit.
const (
	askAgain = 100 * time.Millisecond // the pause before one is asked again that nobody could answer: a failover takes a second or so
	askOnce  = 3 * time.Second        // how long one who was asked may take: there may be another leader by now
	// askFor bounds how long it is asked: shorter than the time that Linux gives such a command (30 s), so that BUSY comes before an
	// abort does.
	askFor = 20 * time.Second
)

// Patient makes an Elsewhere hold questions that describe a unit while nobody serves it, as I/O is held (invariant 5), at most for
// hold, and answers BUSY then. A host asks them once, when it finds a path: one that is told NOT READY in the moment of a failover
// has a disk of no blocks for as long as it has the path. They do nothing to the unit, so they may be asked any number of times;
// all others are passed on once.
func Patient(ask scsi.Elsewhere, hold func() time.Duration) scsi.Elsewhere {
	return func(q scsi.Question, done func(scsi.Answer, bool, error)) (end func()) {
		if !q.Describes() {
			return ask(q, done)
		}
		p := &patience{ask: ask, q: q, done: done, until: time.Now().Add(min(hold(), askFor))}
		p.mu.Lock()
		p.timer = time.AfterFunc(askOnce, p.next)
		p.mu.Unlock()
		p.try()
		return p.giveUp
	}
}

// patience is a question that is asked until it is answered, given up, or late. What runs of it besides is the timer, which is
// stopped when it ends.
type patience struct {
	ask   scsi.Elsewhere
	q     scsi.Question
	done  func(scsi.Answer, bool, error)
	until time.Time

	mu    sync.Mutex
	timer *time.Timer // for the end of a try, or of the pause after it
	n     int         // of the newest try; what comes of earlier ones is ignored
	end   func()      // gives the newest up; nil while it is not known
	ended bool
}

func (p *patience) try() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.n++
	n := p.n
	p.timer.Reset(min(askOnce, max(time.Until(p.until), 0)))
	p.mu.Unlock()
	end := p.ask(p.q, func(a scsi.Answer, asked bool, err error) { p.answered(n, a, asked, err) })
	p.mu.Lock()
	stale := p.ended || p.n != n
	if !stale {
		p.end = end
	}
	p.mu.Unlock()
	if stale && end != nil {
		end()
	}
}

func (p *patience) answered(n int, a scsi.Answer, asked bool, err error) {
	p.mu.Lock()
	if p.ended || p.n != n {
		p.mu.Unlock()
		return
	}
	if err != nil || a.NotReady() {
		p.timer.Reset(min(askAgain, max(time.Until(p.until), 0)))
		p.mu.Unlock()
		return
	}
	p.over(a, asked, nil)
}

// next is what comes when a try has taken too long, or after a pause.
func (p *patience) next() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	end := p.end
	p.end = nil
	if !time.Now().Before(p.until) {
		p.over(scsi.Busy(), true, nil)
	} else {
		p.n++
		p.mu.Unlock()
		p.try()
	}
	if end != nil {
		end()
	}
}

// giveUp ends the question: nobody waits for its answer.
func (p *patience) giveUp() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	end := p.end
	p.over(scsi.Answer{}, true, ErrNotServed)
	if end != nil {
		end()
	}
}

// over ends the question with an answer. Called with mu, which it gives up.
func (p *patience) over(a scsi.Answer, asked bool, err error) {
	p.ended = true
	p.timer.Stop()
	p.mu.Unlock()
	p.done(a, asked, err)
}
