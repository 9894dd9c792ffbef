// Package mirror is the leader's open handle on one volume: it sends every write to all members of the in-sync set,
// answers from one of them, and keeps the set, the marks and the order right while members fail and come back.
//
// Core decides. It is pure: it has no clock, does no I/O, starts no goroutine and draws no random numbers; the same calls
// in the same order give the same effects. One caller at a time. Mirror is the shell around it: a mutex, the sessions,
// the proposals and a timer. It implements block.Device.
//
// DESIGN.md beside this file says why it is right. The numbers in comments are the invariants of docs/ARCHITECTURE.md.
package mirror
