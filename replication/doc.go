// Package replication keeps volumes on several nodes. Its parts, from the words up:
//
//	peer       what a leader and a node with replicas say to each other
//	truth      what replication reads in the catalog and proposes to it
//	replica    a node's pools and replicas: superblocks, marks, epochs, fencing
//	initiator  an iSCSI initiator
//	remote     peer's words over iSCSI, both ends
//	mirror     an open volume: ordering, acknowledging, shrinking, reconciling, resync
//	reign      what a leader does: take-over, serving, yielding
//
// See docs/ARCHITECTURE.md for the invariants; comments here cite them by number.
package replication
