package initiator

import (
	"errors"
	"time"
)

// decision says what a Disk does about a command that has ended.
type decision uint8

const (
	decideDone  decision = iota + 1 // it succeeded
	decideAgain                     // the same portal may succeed, now
	decideLater                     // the same portal may succeed later
	decideElse                      // another portal may
	decideFail                      // none will
)

// decide judges the end of a command (pure). A command that failed with its path, or that a node refused because it does
// not serve the volume now, is tried elsewhere; what says that the command itself is wrong is final.
func decide(c *Command) decision {
	switch {
	case errors.Is(c.Err, ErrCommand):
		return decideFail
	case errors.Is(c.Err, ErrQueueFull), errors.Is(c.Err, ErrAborted), errors.Is(c.Err, ErrFailed):
		return decideLater
	case c.Err != nil:
		return decideElse
	}
	switch c.Status {
	case StatusGood, StatusConditionMet:
		return decideDone
	case StatusTaskSetFull, StatusTaskAborted:
		return decideLater
	case StatusBusy:
		return decideElse
	case StatusCheckCondition:
		s := ParseSense(c.Sense)
		switch {
		case s.Key == KeyUnitAttention:
			return decideAgain
		case s.Key == KeyAborted:
			return decideLater
		case s.Key == KeyNotReady && s.ASC == 0x04 && (s.ASCQ == 0x01 || s.ASCQ == 0x0a || s.ASCQ == 0x0b):
			return decideElse
		}
	}
	return decideFail
}

const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = 200 * time.Millisecond
	// silence is for how long a portal that let a timeout pass is asked after all others.
	silence = 10 * time.Second
	// attentions is how many unit attentions one command may meet before it pauses.
	attentions = 16
)

// backoff is the pause after the n-th failure in a row, n from 0.
func backoff(n int) time.Duration {
	return min(minBackoff<<min(n, 10), maxBackoff)
}

// choose returns the portal to be tried after portal last (-1: none yet): the next one in turn that is not silent, or the
// one whose silence ends first. until has for each portal until when it is silent, in the same measure as now.
func choose(last int, until []time.Duration, now time.Duration) int {
	best := -1
	for i := 1; i <= len(until); i++ {
		p := (last + i) % len(until)
		if until[p] <= now {
			return p
		}
		if best < 0 || until[p] < until[best] {
			best = p
		}
	}
	return best
}

// silent tells whether an error is of a portal that did not answer in time, as one does whose process is stopped.
func silent(err error) bool {
	return errors.Is(err, ErrLoginTimeout) || errors.Is(err, ErrRecoveryTimeout) || errors.Is(err, ErrNoopTimeout)
}
