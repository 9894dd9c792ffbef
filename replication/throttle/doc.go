// Package throttle is the budget that all copies in the background share that a node's mirrors make: resyncs and scrubs, of all
// volumes. It gives as much as the guests do not feel: when the 99th percentile of the time of client I/O rises above a bound,
// copies become slower, down to a floor, never to nothing: a copy that does not end is a copy that is missing.
//
// pace decides and is pure; Throttle is the shell around it: a lock, a clock, and a timer for who waits.
package throttle
