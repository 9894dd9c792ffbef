// Package local runs a cluster of real daemons on this machine: one process for each node, on the first addresses of a
// network within 127.0.0.0/8 that no other cluster uses, ports that are free, and directories below one. The demo and the system tests are built on it. It needs no root.
//
// The processes never outlive their owner: Close kills those that run, and the kernel kills them if the owner dies.
package local
