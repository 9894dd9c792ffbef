// Package target is an iSCSI target (RFC 7143): portals, login, sessions, tasks and transfers. What a command does is
// not its business: it hands each task to the Nexus that the Provider chose at login. Hosts' LUNs (package scsi) and
// the replicas that a node exports to its peers are both served through it.
package target
