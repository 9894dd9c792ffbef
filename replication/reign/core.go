package reign

import (
	"errors"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// ErrUnusable is returned when the newest fence of a node does not show a usable replica.
var ErrUnusable = errors.New("reign: the replica is not usable")

// Core is the leader's decisions. One caller at a time.
type Core struct{}

// NewCore makes a Core for the node self. cfg is valid. now is the time since any fixed moment, and never goes back.
func NewCore(cfg Config, self ids.Node) *Core { return &Core{} }

// Step says that ev happened at now, and returns what is to be done.
func (c *Core) Step(now time.Duration, ev Event) []Effect { return nil }

// Next returns when the next Tick is due; false if none is.
func (c *Core) Next() (time.Duration, bool) { return 0, false }

// Usable returns the replica of v at place as the newest session of place.Node has it: for a mirror that wants to reach a
// member again. It is an ErrUnusable if there is no session, its pool is busy or absent, the replica is missing or of
// another lineage, or its pool was reverted since this reign fenced it first.
func (c *Core) Usable(v truth.Volume, place truth.Place) (Member, error) {
	return Member{}, ErrUnusable
}

// Status describes the state.
func (c *Core) Status() Status { return Status{} }
