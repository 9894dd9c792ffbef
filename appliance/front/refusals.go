package front

import (
	"errors"
	"net/netip"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// Refusals of logins to mapped LUNs, and of those that come too often.
var (
	errUnknownHost = &target.Refusal{Status: iscsi.LoginForbidden, Why: "no host has this iSCSI name (pmsapp host add)"}
	errNoLUN       = &target.Refusal{Status: iscsi.LoginForbidden, Why: "no LUN is mapped to this host (pmsapp lun map)"}
	errTooMany     = &target.Refusal{Status: iscsi.LoginUnavailable, Why: "too many logins from this address have failed: it waits"}
)

// Limits of the back-off. Logins that fail are counted by the address that they come from, not by the name that they claim: who
// guesses secrets shuts out nobody else.
const (
	freeFailures = 3
	minBar       = time.Second
	maxBar       = time.Minute
	maxBarred    = 1024 // addresses
)

// backoff bars addresses from which logins have failed to prove who they are: longer with each, up to a minute. It is pure.
type backoff struct {
	failed map[netip.Addr]failure
}

type failure struct {
	n     int
	until time.Time
}

func (b *backoff) barred(a netip.Addr, now time.Time) bool { return now.Before(b.failed[a].until) }

func (b *backoff) fail(a netip.Addr, now time.Time) {
	if b.failed == nil {
		b.failed = map[netip.Addr]failure{}
	}
	f, known := b.failed[a]
	if !known && len(b.failed) >= maxBarred {
		oldest := a
		for o, g := range b.failed {
			if oldest == a || g.until.Before(b.failed[oldest].until) {
				oldest = o
			}
		}
		delete(b.failed, oldest)
	}
	f.n++
	f.until = now
	if f.n > freeFailures {
		f.until = now.Add(min(minBar<<min(f.n-freeFailures-1, 10), maxBar))
	}
	b.failed[a] = f
}

func (b *backoff) forgive(a netip.Addr) { delete(b.failed, a) }

// Refused is told of each login that was refused, and returns whether it is worth an event: a wrong name or secret, an initiator
// that may not log in, a target that there is not.
func (h *Hosts) Refused(l target.Login, err error) bool {
	var r *target.Refusal
	if !errors.As(err, &r) {
		return false
	}
	if r.Status == iscsi.LoginAuthFailed {
		h.mu.Lock()
		h.slow.fail(l.Remote.Addr(), h.now())
		h.mu.Unlock()
	}
	switch r.Status {
	case iscsi.LoginAuthFailed, iscsi.LoginForbidden, iscsi.LoginNotFound:
		return true
	}
	return false
}

// Limits of events about refusals.
const (
	sameRefusal = time.Minute // between two about the same initiator, target and address
	maxRefusals = 32          // kinds of them in that time; of more nothing is told
)

// Telling bounds the events about refused logins. Its zero value is ready; it is pure, and for one user at a time.
type Telling struct{ told map[string]time.Time }

// Tell says whether an event may be told now.
func (t *Telling) Tell(what string, now time.Time) bool {
	for k, at := range t.told {
		if now.Sub(at) >= sameRefusal {
			delete(t.told, k)
		}
	}
	if _, again := t.told[what]; again || len(t.told) >= maxRefusals {
		return false
	}
	if t.told == nil {
		t.told = map[string]time.Time{}
	}
	t.told[what] = now
	return true
}
