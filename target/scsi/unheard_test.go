package scsi_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// hanging does updates, and answers them later: with what it is told to.
type hanging struct {
	block.Device
	mu   sync.Mutex
	held []func(error)
}

func (h *hanging) Submit(r *block.Request) {
	if r.Op == block.Update {
		done := r.Done
		r.Done = func(r *block.Request) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.held = append(h.held, func(err error) {
				r.Err = errors.Join(r.Err, err)
				done(r)
			})
		}
	}
	h.Device.Submit(r)
}

// release answers what was done.
func (h *hanging) release(err error) {
	h.mu.Lock()
	held := h.held
	h.held = nil
	h.mu.Unlock()
	for _, f := range held {
		f(err)
	}
}

// TestUnheardOutcome: a COMPARE AND WRITE was carried out, and its host was not told so, though the unit was served by the same leader all the while: the
// command was aborted, its session has ended, or it was held for too long. When it comes again it finds its own bytes, and gets GOOD; once.
func TestUnheardOutcome(t *testing.T) {
	take := append(make([]byte, 512), fill(512, 1)...)
	for what, lose := range map[string]func(*rig, *hanging){
		"aborted": func(r *rig, h *hanging) {
			w, ended := r.start(caw(3, 1), take, 0)
			w.Stop()
			h.release(nil)
			<-ended // and the connection layer answers nothing
		},
		"answered into a connection that has broken": func(r *rig, h *hanging) {
			w, ended := r.start(caw(3, 1), take, 0)
			h.release(nil)
			<-ended
			r.good(w)
			r.nexus.End(errors.New("connection reset by peer"))
			r.nexus = r.target.Nexus(target.Login{})
			r.attention(0x2900)
		},
		"carried out when the session had ended": func(r *rig, h *hanging) {
			w, ended := r.start(caw(3, 1), take, 0)
			w.Stop()
			r.nexus.End(target.ErrReinstated)
			r.nexus = r.target.Nexus(target.Login{})
			r.attention(0x2900)
			h.release(nil)
			<-ended
		},
		"held": func(r *rig, h *hanging) {
			w, ended := r.start(caw(3, 1), take, 0)
			h.release(block.ErrHeld)
			<-ended
			r.status(w, 8)
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			h := &hanging{Device: r.dev}
			if err := r.lu.Serve(h, r.keeper); err != nil {
				t.Fatal(err)
			}
			lose(r, h)
			if !bytes.Equal(r.dev.Bytes(3*512, 512), take[512:]) {
				t.Fatal("it was not carried out")
			}
			other := r.host("other")
			other.sense(other.do(caw(3, 1), take, 0), 0xe, 0x1d00)
			writes := r.dev.Writes()
			r.good(r.do(caw(3, 1), take, 0))
			if r.dev.Writes() != writes {
				t.Error("what was done was done again")
			}
			r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00)
		})
	}
}

// TestUnheardAndOvertaken: who was not told that he had won, and was overtaken by another winner, has lost.
func TestUnheardAndOvertaken(t *testing.T) {
	r := newRig(t)
	take, free := append(make([]byte, 512), fill(512, 1)...), append(fill(512, 1), make([]byte, 512)...)
	r.good(r.do(caw(3, 1), take, 0))
	r.nexus.End(errors.New("connection reset by peer"))
	other := r.host("other")
	other.good(other.do(caw(3, 1), free, 0))
	other.good(other.do(caw(3, 1), take, 0))
	r.nexus = r.target.Nexus(target.Login{})
	r.attention(0x2900)
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00)
}
