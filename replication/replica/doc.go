// Package replica is a node's own part: its pools, the replicas in them, their marks, and the fence.
//
// Node is what a node has: it answers a leader's fence with a Session, which executes commands. A pool is a directory, with
// a directory for each replica: its data, a sparse file; its map, the marks; and the checksums of its blocks. docs/FORMATS.md
// draws the bytes, DESIGN.md beside this file argues. What decides is pure: marks.go (which regions are active), mapblock.go
// and sumleaf.go (the bytes).
package replica
