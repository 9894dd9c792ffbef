package treesim

// Break is a rule broken on purpose, at the seams: the share and the tree stay as they ship.
type Break string

// The breaks.
const (
	BreakNothing   Break = ""
	BreakDurable   Break = "1: the last write that was acknowledged is lost with the leader"
	BreakUnknown   Break = "2: a command whose outcome is unknown is taken for done"
	BreakLate      Break = "8: writes of a former leader reach the disk after the next one has begun"
	BreakConfirm   Break = "11: a former leader's reads are answered"
	BreakZero      Break = "16: zeroing leaves what was there"
	BreakReplies   Break = "once: the catalog forgets who has called"
	BreakCommitted Break = "once: the last command that was acknowledged is lost with the leader"
	BreakCeiling   Break = "times: the ceiling is not committed"
	BreakMarks     Break = "times: marks are not committed"
	BreakOpen      Break = "space: a new leader takes no space back"
	BreakEarly     Break = "data before size: a write is acknowledged before it is there"
)

// Breaks is all of them.
func Breaks() []Break {
	return []Break{BreakDurable, BreakUnknown, BreakLate, BreakConfirm, BreakZero, BreakReplies, BreakCommitted, BreakCeiling,
		BreakMarks, BreakOpen, BreakEarly}
}
