// Package catalog is the state that Raft replicates, and the state machine that changes it: nodes, pools, volumes, the
// in-sync sets, exports, tokens and the event log.
//
// It is pure: Apply takes a state, a log index and a command, and returns the next state; it has no clock (a command
// carries its proposer's time, for the event log only), no I/O and no randomness. A State is never changed after it was
// returned, so that readers need no lock.
//
// Every command has a kind, the lowest version of pmsApp that knows it, and a request id; a request that was applied is
// answered again from a bounded memory (Limits). A command that the cluster's oldest node does not know is rejected by
// name, so that no node ever meets one that it cannot apply.
package catalog
