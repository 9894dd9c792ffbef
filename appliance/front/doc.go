// Package front is what this node's target server offers: a target for each exported volume, to hosts, and the node's own
// target, to the other nodes. It implements target.Provider.
//
// Every exported volume has a target of its own, iqn.2026-11.app.pmsapp:NAME, on every node, with the volume as its LUN
// (number 1 unless the catalog says otherwise: LUN 0 is left to whoever has no LUN). The LU is NOT READY where the volume
// is not served; on the leader it serves the mirror, or, while no in-sync member is in reach, holds I/O (waiting.go).
package front
