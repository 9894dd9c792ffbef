// Package sim is a deterministic little world for tests: virtual time, processes that are paused, killed and started
// again, a network that loses, delays and cuts, disks that forget what was not flushed. Everything runs in the caller's
// goroutine, in an order that follows from the seed alone: the same seed gives the same run.
//
// Nothing here knows pmsApp; systemtest/sim builds clusters of the real decision cores on it. Code that runs in a World
// must not read a clock, start a goroutine, draw other random numbers, or let the order of a map reach an effect.
package sim
