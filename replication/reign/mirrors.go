package reign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// lookUp bounds how long a mirror that is opened waits for a session that is being opened again.
const lookUp = 250 * time.Millisecond

// errEnded is the cause of the end of a mirror that Core closed.
var errEnded = errors.New("reign: closed")

// handle is a mirror that Core has asked for.
type handle struct {
	epoch  peer.Epoch
	m      Mirror // nil until it is open
	closed bool   // Core wants it no more
	cause  error
	told   SetDurability // the newest
}

// openMirror begins to open one. The lock is held.
func (r *Reign) openMirror(e OpenMirror) {
	h := &handle{epoch: e.Epoch}
	id := e.Volume.ID
	r.mirrors[id] = h
	cfg := mirror.Config{
		Params: mirror.Params{
			Volume: e.Volume, Epoch: e.Epoch, Prior: e.Prior, Self: r.d.Self, Physical: r.d.Physical, Tunables: r.d.Tunables,
		},
		Sessions: &lease{r: r, epoch: e.Epoch}, Catalog: r.d.Catalog, Log: r.log, Budget: r.d.Budget,
		Notify: func(n mirror.Notice) { r.notice(id, h, n) },
		Resynced: func(n ids.Node, s mirror.ResyncStatus, err error) {
			r.step(ResyncEnded{Volume: id, Node: n, Epoch: h.epoch, Status: s, Err: err})
		},
	}
	for _, m := range e.Members {
		cfg.Params.Members = append(cfg.Params.Members, mirror.Member{
			Node: m.Place.Node, Seq: m.Replica.Seq, Durable: m.Replica.Durable, Incarnation: m.Replica.Incarnation,
		})
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, lookUp)
		defer cancel()
		m, err := r.d.OpenMirror(ctx, cfg)
		r.mu.Lock()
		switch {
		case err != nil && !h.closed:
			delete(r.mirrors, id)
			r.stepLocked(MirrorEnded{Volume: id, Epoch: h.epoch, Err: err})
			fallthrough
		case err != nil:
			r.mu.Unlock()
			return
		case h.closed:
			r.mu.Unlock()
			m.Close(h.cause)
			return
		}
		h.m = m
		v := e.Volume
		r.notes.add(true, func() { r.d.Observer.Serving(v, m) })
		r.stepLocked(MirrorOpened{Volume: id, Epoch: h.epoch})
		r.mu.Unlock()
		r.watchMirror(id, h, m)
	})
}

// watchMirror waits for the end of a mirror: by itself, or because Core closed it.
func (r *Reign) watchMirror(id ids.Volume, h *handle, m Mirror) {
	<-m.Done()
	r.mu.Lock()
	if h.closed {
		r.mu.Unlock()
		return
	}
	err := m.Err()
	r.drop(id, h, err)
	r.notes.add(true, func() { r.d.Observer.Standby(id, errText(err)) })
	r.stepLocked(MirrorEnded{Volume: id, Epoch: h.epoch, Err: err})
	r.mu.Unlock()
	m.Close(err)
}

// drop forgets a mirror. The lock is held.
func (r *Reign) drop(id ids.Volume, h *handle, cause error) {
	h.closed, h.cause = true, cause
	if r.mirrors[id] == h {
		delete(r.mirrors, id)
	}
}

// closeMirror ends one. What it holds ends with block.ErrEnded at once; what is under way ends when the sessions have
// answered, which Core closes next if they are not needed any more. The lock is held.
func (r *Reign) closeMirror(e CloseMirror) {
	h := r.mirrors[e.Volume]
	if h == nil {
		return
	}
	cause := fmt.Errorf("%w: %s", errEnded, e.Cause)
	r.drop(e.Volume, h, cause)
	if h.m == nil {
		return // whoever opens it sees
	}
	r.notes.add(true, func() { r.d.Observer.Standby(e.Volume, e.Cause) })
	r.wg.Go(func() { h.m.Close(cause) })
}

func (r *Reign) drainMirror(e DrainMirror) {
	h := r.mirrors[e.Volume]
	if h == nil || h.m == nil {
		return // MirrorEnded is on its way
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.cfg.DrainTimeout)
		defer cancel()
		err := h.m.Drain(ctx)
		r.step(MirrorDrained{Volume: e.Volume, Epoch: h.epoch, Err: err})
	})
}

func (r *Reign) startResync(e StartResync) {
	h := r.mirrors[e.Volume]
	n := e.Member.Place.Node
	if h == nil || h.m == nil {
		return // the reign or the volume is at its end, and with it the resync
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.cfg.OpenTimeout)
		defer cancel()
		if err := h.m.StartResync(ctx, mirror.Joiner{Place: e.Member.Place, Empty: e.Empty, Accepted: e.Accepted}); err != nil {
			r.step(ResyncEnded{Volume: e.Volume, Node: n, Epoch: h.epoch, Err: err})
		}
	})
}

// resizeMirror has an open mirror take another size, and then the hosts. The lock is held.
func (r *Reign) resizeMirror(v truth.Volume) {
	h := r.mirrors[v.ID]
	if h == nil || h.m == nil {
		return
	}
	r.wg.Go(func() {
		h.m.Resize(v.Size)
		r.mu.Lock()
		defer r.mu.Unlock()
		if !h.closed {
			r.notes.add(true, func() { r.d.Observer.Serving(v, h.m) })
		}
	})
}

// setDurability tells a mirror what an acknowledgement means. Hosts learn that what they write may be volatile before it is.
// The lock is held.
func (r *Reign) setDurability(e SetDurability) {
	h := r.mirrors[e.Volume.ID]
	if h == nil || h.m == nil {
		return
	}
	h.told = e
	r.wg.Go(func() {
		h.m.SetDurability(false, e.Volatile)
		r.mu.Lock()
		defer r.mu.Unlock()
		if h.closed {
			return
		}
		r.notes.add(true, func() {
			r.mu.Lock()
			now := h.told // another may have come, and have been quicker
			r.mu.Unlock()
			h.m.SetDurability(false, now.Volatile)
			r.d.Observer.Serving(now.Volume, h.m)
			h.m.SetDurability(now.Memory, now.Volatile)
		})
	})
}

// tellMirror tells an open mirror something. The lock is held.
func (r *Reign) tellMirror(v ids.Volume, f func(Mirror)) {
	if h := r.mirrors[v]; h != nil && h.m != nil {
		r.wg.Go(func() { f(h.m) })
	}
}

// notice tells Core what it has to know of a mirror, and people the rest.
func (r *Reign) notice(v ids.Volume, h *handle, n mirror.Notice) {
	kind, text, ok := describeNotice(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch n.Code {
	case mirror.Holding:
		why := "some member is waited for"
		if n.Err != nil {
			why = n.Err.Error()
		}
		r.stepLocked(MirrorHolds{Volume: v, Epoch: h.epoch, Why: why})
	case mirror.MemberAdded, mirror.MemberRemoved:
		r.stepLocked(MirrorSet{Volume: v, Node: n.Node, Epoch: h.epoch, Member: n.Code == mirror.MemberAdded})
	case mirror.MemberSlow:
		r.stepLocked(MemberSlow{Volume: v, Node: n.Node, Epoch: h.epoch})
	case mirror.Resumed:
		r.stepLocked(MirrorHolds{Volume: v, Epoch: h.epoch})
	}
	if ok && !r.closed {
		r.begin(Tell{Kind: kind, Volume: v, Node: n.Node, Text: text})
	}
}

func describeScrub(r *mirror.ScrubReport) string {
	how := "done"
	if r.Stopped != nil {
		how = "stopped (" + r.Stopped.Error() + ")"
	}
	return fmt.Sprintf("scrub %s: %d bytes were read in %.0f s; mended %d, unreadable %d, differing %d", how, r.Bytes, r.Seconds,
		r.Mended, r.Unreadable, r.Differing)
}

func join(nodes []ids.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.String())
	}
	return strings.Join(names, ", ")
}

// describeNotice says a notice in words. Those that Core tells of itself, or that are only details, are not for people.
func describeNotice(n mirror.Notice) (kind Kind, text string, ok bool) {
	why := func(s string) string {
		if n.Err == nil {
			return s
		}
		return s + ": " + n.Err.Error()
	}
	switch n.Code {
	case mirror.MemberRemoved:
		return MembersRemoved, why("the replica left the in-sync set"), true
	case mirror.MemberAdded:
		return MemberAdded, "the replica entered the in-sync set", true
	case mirror.MediumError:
		return DiskError, why(fmt.Sprintf("the disk failed at byte %d", n.Off)), true
	case mirror.MendFailed:
		return DiskError, why(fmt.Sprintf("bytes %d to %d are bad, and the disk does not take what they should be", n.Off, n.Off+n.Len-1)), true
	case mirror.Mended:
		return Mended, fmt.Sprintf("bytes %d to %d of this replica were bad, and have been written anew from another", n.Off, n.Off+n.Len-1), true
	case mirror.Unreadable:
		return Unreadable, fmt.Sprintf("bytes %d to %d cannot be read from any in-sync replica: those of nodes %s", n.Off, n.Off+n.Len-1, join(n.Nodes)), true
	case mirror.Differ:
		return Differ, fmt.Sprintf("bytes %d to %d differed between the replicas of nodes %s though each fits its checksum; they are made equal",
			n.Off, n.Off+n.Len-1, join(n.Nodes)), true
	case mirror.Scrubbed:
		return Scrubbed, describeScrub(n.Scrub), true
	case mirror.PoolFull:
		return PoolFull, fmt.Sprintf("the pool was full at byte %d", n.Off), true
	case mirror.ReconcileBegun:
		return Reconciling, fmt.Sprintf("%d regions are compared", n.Count), n.Count > 0
	case mirror.ReconcileDone:
		return Reconciling, "all members are equal", true
	case mirror.ReconcileFailed:
		return Reconciling, why(fmt.Sprintf("the members could not be made equal at byte %d", n.Off)), true
	}
	return "", "", false
}
