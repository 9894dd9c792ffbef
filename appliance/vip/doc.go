// Package vip holds the virtual address: the one that follows the leader, with iSCSI and NFS.
//
// With an interface, the address is added to it with a short valid lifetime that is renewed while this node leads and
// runs: the kernel of a node that hangs (or whose process was stopped) takes it away by itself. When it was added, it
// is announced by gratuitous ARP, some times in as many seconds, so that hosts and switches send to the new leader. Without an interface the address is
// local already (127.0.0.1 in the demo) and having it means to listen on it.
//
// The address is a convenience, no part of safety: two nodes that have it for a moment both answer by the invariants, and
// the one that leads no more answers nothing (invariants 8 and 11). So a leader never waits for it: it serves on its own
// portal at once, and goes on trying here.
//
// A Guardian keeps the address's connections when the process that has it dies, until another has it: DESIGN.md.
package vip
