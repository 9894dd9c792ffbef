package sim

// Break is an invariant broken on purpose.
type Break uint8

const (
	BreakNothing Break = iota
	BreakVotes
	BreakDeadWrites
)
