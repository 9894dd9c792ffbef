package initiator

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// paths keeps a Disk's sessions: at most one for each portal, made when the portal is first tried.
type paths struct {
	cfg     Config
	portals []string
	hooks   Hooks
	begun   time.Time
	ctx     context.Context // ends with close
	cancel  context.CancelFunc
	all     sync.WaitGroup // the goroutines that connect and that log out

	mu       sync.Mutex // guards what follows
	closed   bool
	sessions []*Session      // by portal; nil if there is none
	until    []time.Duration // until when a portal is silent, since begun
	probing  []bool          // a silent portal is being tried, beside the others
	at       int             // the portal that is used or being tried
	turn     int             // grows with each change of at
	refused  int             // attempts to connect that failed in a row
	dialing  chan struct{}   // closed when the attempt under way has ended; nil if there is none
	dialed   int             // the portal that is being dialled for it; -1 if none is
	last     error           // why the last attempt failed
}

// route is a session to run a command on, and the turn in which it was given out.
type route struct {
	session *Session
	portal  string
	turn    int
}

func newPaths(cfg Config, portals []string, hooks Hooks) *paths {
	p := &paths{cfg: cfg, portals: portals, hooks: hooks, begun: time.Now(),
		sessions: make([]*Session, len(portals)), until: make([]time.Duration, len(portals)), probing: make([]bool, len(portals)), dialed: -1}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// get returns a session that seems to live, connecting if need be. It returns the error of ctx, or ErrClosed.
func (p *paths) get(ctx context.Context) (route, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return route{}, ErrClosed
		}
		if s := p.sessions[p.at]; s != nil && s.Err() == nil {
			out := route{session: s, portal: p.portals[p.at], turn: p.turn}
			p.mu.Unlock()
			return out, nil
		}
		if p.dialing == nil {
			p.dialing = make(chan struct{})
			at := p.at
			p.dialed = at
			p.all.Go(func() { p.connect(at) })
		}
		dialing := p.dialing
		p.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			p.mu.Lock()
			last := p.last
			p.mu.Unlock()
			if last == nil {
				return route{}, ctx.Err()
			}
			return route{}, fmt.Errorf("%w; the last attempt: %w", ctx.Err(), last)
		}
	}
}

// connect tries a portal that has no session once. If that fails it takes the next, and pauses when all have failed. Of each
// portal there is one attempt at a time, here or in probe: no session that lives is ever replaced. Meanwhile the turn may
// have gone to another portal.
func (p *paths) connect(at int) {
	p.mu.Lock()
	probing := p.probing[at]
	p.mu.Unlock()
	if probing { // all are silent
		sleep(p.ctx, minBackoff)
		p.mu.Lock()
		p.dialed = -1
		p.next(at, nil)
		close(p.dialing)
		p.dialing = nil
		p.mu.Unlock()
		return
	}
	cfg := p.cfg
	cfg.Portal = p.portals[at]
	s, err := follow(p.ctx, cfg)
	pause := false
	var failures int
	p.mu.Lock()
	p.dialed = -1
	if err == nil {
		p.adopt(at, s)
		p.last, p.refused = nil, 0
	} else {
		p.last = err
		p.next(at, err)
		p.refused++
		pause = p.refused%len(p.portals) == 0
		failures = p.refused / len(p.portals)
	}
	p.mu.Unlock()
	switch {
	case err == nil && p.hooks.Connected != nil:
		p.hooks.Connected(cfg.Portal)
	case err != nil && p.hooks.Lost != nil:
		p.hooks.Lost(cfg.Portal, err)
	}
	if pause {
		sleep(p.ctx, backoff(failures-1))
	}
	p.mu.Lock()
	close(p.dialing)
	p.dialing = nil
	p.mu.Unlock()
}

// adopt keeps a new session. It is called with the lock held.
func (p *paths) adopt(at int, s *Session) {
	p.sessions[at] = s
	if p.closed {
		s.Close()
	}
	p.all.Go(func() {
		<-s.Done()
		if p.hooks.Lost != nil {
			p.hooks.Lost(p.portals[at], s.Err())
		}
	})
}

// probe tries a portal that let a timeout pass again and again, until it answers, or is found to be closed: so that the others
// are asked meanwhile, and it as soon as it is back, be it the one that serves then.
func (p *paths) probe(at int) {
	cfg := p.cfg
	cfg.Portal = p.portals[at]
	for {
		s, err := follow(p.ctx, cfg)
		if err == nil || !silent(err) || p.ctx.Err() != nil {
			p.mu.Lock()
			p.until[at], p.probing[at] = 0, false
			if err == nil {
				p.adopt(at, s)
			}
			p.mu.Unlock()
			if err == nil && p.hooks.Connected != nil {
				p.hooks.Connected(cfg.Portal)
			}
			return
		}
		sleep(p.ctx, maxBackoff)
	}
}

// leave goes on to the next portal, unless another command has done so since x was given out.
func (p *paths) leave(x route, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn == x.turn {
		p.last = why
		p.next(p.at, why)
	}
}

// next takes the next portal after one that has failed, if it is still that one's turn. It is called with the lock held.
func (p *paths) next(failed int, why error) {
	now := time.Since(p.begun)
	if silent(why) {
		p.until[failed] = now + silence
		if !p.probing[failed] && !p.closed && p.dialed != failed {
			p.probing[failed] = true
			p.all.Go(func() { p.probe(failed) })
		}
	}
	if p.at == failed {
		p.at = choose(failed, p.until, now)
		p.turn++
	}
}

func (p *paths) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[p.at]; s != nil && s.Err() == nil {
		return p.portals[p.at]
	}
	return ""
}

// close logs out of all sessions and waits.
func (p *paths) close() {
	p.mu.Lock()
	p.closed = true
	sessions := append([]*Session(nil), p.sessions...)
	p.mu.Unlock()
	p.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Timeouts.Logout)
	defer cancel()
	var out sync.WaitGroup
	for _, s := range sessions {
		if s != nil {
			out.Go(func() { s.Logout(ctx) })
		}
	}
	out.Wait()
	p.all.Wait()
}
