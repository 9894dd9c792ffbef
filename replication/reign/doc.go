// Package reign is what the Raft leader does with replication: it takes over under a new epoch, fences the nodes that hold
// replicas, removes from the in-sync sets what it could not fence, has the volumes served by mirrors, brings absent nodes
// back, creates and deletes replicas, and hands over when another node would serve more (invariants 6-8, 14, 15, 17, 19).
//
// Core decides. It has no clock, I/O, goroutine or randomness: Step is given the time and an Event, and returns the Effects
// to carry out, in order. Reign is the thin shell around it: it owns the goroutines, the sessions and the mirrors.
//
// DESIGN.md argues why it is safe, with the crashes and interleavings that were thought of.
package reign
