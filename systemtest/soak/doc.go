// Package soak runs a cluster of real daemons under load, and kills, stops, and hands over meanwhile. It checks every answer
// that a host gets, measures how long I/O stands still, and compares the replicas in the end. `make soak N=100` runs it for
// long; `make test` runs one round of each kind.
package soak
