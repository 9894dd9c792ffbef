package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/bench/measure"
)

// side is one of those that are compared.
type side struct {
	name   string
	copies int // replicas; 0: not ours
	portal string
	target string
	lun    int
	procs  []measure.Proc
	stop   func()

	sessions []*initiator.Session
	next     int64 // of a sequential run, in bytes
}

// connect logs in once more, with the same parameters on every side.
func (s *side) connect(ctx context.Context) error {
	session, err := initiator.Dial(ctx, initiator.Config{Portal: s.portal, Initiator: fmt.Sprintf("iqn.2026-11.app.pmsapp:bench%d", len(s.sessions)),
		Target: s.target, Timeouts: initiator.HostTimeouts(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	s.sessions = append(s.sessions, session)
	for range 10 { // unit attentions
		c := s.command(session, []byte{0, 0, 0, 0, 0, 0})
		if c.Err == nil && c.Status == initiator.StatusGood {
			return nil
		}
		err = fmt.Errorf("TEST UNIT READY: %v, status %#x, sense %x", c.Err, c.Status, c.Sense)
	}
	return err
}

func (s *side) disconnect() {
	for _, session := range s.sessions {
		session.Close()
	}
}

func (s *side) command(session *initiator.Session, cdb []byte) *initiator.Command {
	ended := make(chan struct{})
	c := &initiator.Command{LUN: uint64(s.lun) << 48, CDB: cdb, Done: func(*initiator.Command) { close(ended) }}
	session.Submit(c)
	<-ended
	return c
}

// result is what a run has shown.
type result struct {
	count   int
	took    time.Duration
	slowest float64 // the session that did least, as a part of the mean
}

// runner is a run under way.
type runner struct {
	s      *side
	j      job
	until  time.Time // zero: once over the whole LUN
	random *rand.Rand

	mu     sync.Mutex
	off    int64
	counts []int // of each session
	err    error
	work   sync.WaitGroup
}

// slot is a command that is used again and again.
type slot struct {
	r       *runner
	session int
	cmd     initiator.Command
}

// run keeps depth commands under way in each session for a while, or, with no time, until the whole LUN was covered once.
func (s *side) run(ctx context.Context, j job, d time.Duration) (result, error) {
	sessions := max(1, j.sessions)
	for len(s.sessions) < sessions {
		if err := s.connect(ctx); err != nil {
			return result{}, err
		}
	}
	r := &runner{s: s, j: j, random: rand.New(rand.NewPCG(1, 2)), off: s.next, counts: make([]int, sessions)}
	if d > 0 {
		r.until = time.Now().Add(d)
	} else {
		r.off = 0
	}
	began := time.Now()
	for i := range sessions * j.depth {
		buf := block.Get(j.bytes)
		for k := range buf {
			buf[k] = byte(r.random.Uint32())
		}
		c := &slot{r: r, session: i % sessions}
		c.cmd = initiator.Command{LUN: uint64(s.lun) << 48, CDB: make([]byte, 16), Done: r.done, Owner: c}
		if j.write {
			c.cmd.DataOut = buf
		} else {
			c.cmd.DataIn = buf
		}
		if r.prepare(ctx, &c.cmd) {
			r.work.Add(1)
			s.sessions[c.session].Submit(&c.cmd)
		}
	}
	r.work.Wait()
	s.next = r.off
	out := result{took: time.Since(began)}
	for _, n := range r.counts {
		out.count += n
	}
	out.slowest = float64(slices.Min(r.counts)*sessions) / float64(max(out.count, 1))
	return out, r.err
}

// prepare writes the next CDB; false: the run is over.
func (r *runner) prepare(ctx context.Context, c *initiator.Command) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || ctx.Err() != nil || !r.until.IsZero() && time.Now().After(r.until) {
		return false
	}
	var off int64
	switch {
	case r.j.random:
		off = r.random.Int64N(*size/int64(r.j.bytes)) * int64(r.j.bytes)
	default:
		if r.off+int64(r.j.bytes) > *size {
			if r.until.IsZero() {
				return false
			}
			r.off = 0
		}
		off = r.off
		r.off += int64(r.j.bytes)
	}
	op := byte(0x88)
	if r.j.write {
		op = 0x8a
	}
	lba, n := off/512, r.j.bytes/512
	copy(c.CDB, []byte{op, 0, byte(lba >> 56), byte(lba >> 48), byte(lba >> 40), byte(lba >> 32), byte(lba >> 24), byte(lba >> 16),
		byte(lba >> 8), byte(lba), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return true
}

// done ends a command and begins the next.
func (r *runner) done(c *initiator.Command) {
	o := c.Owner.(*slot)
	r.mu.Lock()
	switch {
	case c.Err != nil:
		r.err = c.Err
	case c.Status != initiator.StatusGood:
		r.err = fmt.Errorf("status %#x, sense %x", c.Status, c.Sense)
	default:
		r.counts[o.session]++
	}
	r.mu.Unlock()
	if r.prepare(context.Background(), c) {
		r.s.sessions[o.session].Submit(c)
		return
	}
	r.work.Done()
}
