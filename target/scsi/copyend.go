package scsi

import (
	"errors"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// copies are those of the nexus at the unit that was asked for the copy.
func (k *copying) copies() *copies { return &k.c.unit.flight.copies }

// goesOn notes that requests went well, and that n bytes more are copied.
func (k *copying) goesOn(n int64, requests uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.far.commands += requests
	k.far.bytes += n
	if len(k.ranges) == 0 {
		k.far.segments = k.segments
	} else {
		k.far.segments = k.ranges[0].segment + 1
	}
}

func (k *copying) progress() copyProgress {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.far
}

// end ends the task.
func (k *copying) end(err error, wrote bool) {
	t := k.c.task
	block.Put(k.buf)
	k.buf = nil
	how := byte(copyFailed)
	switch {
	case err == nil:
		how, t.Status = copyDone, api.SAM_STAT_GOOD
	case errors.Is(err, errStopped): // nobody is answered
		how, t.Status = copyTerminated, api.SAM_STAT_TASK_ABORTED
	case errors.Is(err, block.ErrHeld) && k.progress().bytes > 0:
		// BUSY would say that nothing was done; a copy onto itself that is begun anew copies what it has written.
		k.abort(nil, wrote)
	case errors.Is(err, block.ErrHeld), errors.Is(err, block.ErrEnded), errors.Is(err, block.ErrNoSpace):
		// Of a full pool a host hears what a write would be told: it pauses the VM that copies, and need not look into a copy's sense data.
		fail(t, err, wrote)
	default:
		var inner target.Task
		fail(&inner, err, wrote)
		k.abort(inner.Sense, wrote)
	}
	k.copies().end(k, how)
	t.Done(t)
}

// abort ends the task with COPY ABORTED, THIRD PARTY DEVICE FAILURE (SPC-4 5.17.7.4): the segment that was under way, how many of its
// blocks are missing at the destination, and the sense data of the unit that failed, which is the destination if wrote is set.
func (k *copying) abort(inner []byte, wrote bool) {
	t, g := k.c.task, &k.ranges[0]
	left := g.n - k.done
	if g.back {
		left = g.n // what counts is written from its beginning on
	}
	s := sense{key: gotgt.COPY_ABORTED, asc: ascThirdParty, segment: uint16(g.segment)}
	t.Sense = s.fixed(t.SenseBuf[:], uint32(left>>g.block), k.done > 0)
	if len(inner) == 0 {
		t.Status = api.SAM_STAT_CHECK_CONDITION
		return
	}
	at := 8 // of the COMMAND-SPECIFIC INFORMATION field: where the source's status and sense data begin; the destination's
	if wrote {
		at++
	}
	t.Sense[at] = byte(len(t.Sense))
	t.Sense = append(append(t.Sense, api.SAM_STAT_CHECK_CONDITION), inner...)
	t.Sense[7] = byte(len(t.Sense) - 8)
	t.Status = api.SAM_STAT_CHECK_CONDITION
}
