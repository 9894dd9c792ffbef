// Package reserve is the state machine of a logical unit's reservations: persistent ones (SPC-4 5.13, 6.15, 6.16) and those of
// RESERVE and RELEASE (SPC-2 7.21 to 7.26, by the rules of SPC-4 5.13.3 beside persistent ones).
//
// It is pure. The leader's device server applies a command to the state that it knows, to learn what the command would forbid;
// the catalog's state machine applies the same command to the same state, and what comes out is the truth (invariant 17).
// A State never changes once it was returned.
//
// An I_T nexus is an initiator port (iSCSI name and ISID) and a relative target port identifier. Both outlive sessions and nodes,
// so registrations and reservations do.
package reserve
