// Package local runs a cluster of real daemons on this machine: one process for each node, on 127.0.0.1, 127.0.0.2 and so
// on, ports that are free, and directories below one. The demo and the system tests are built on it. It needs no root.
//
// The processes never outlive their owner: Close kills those that run, and the kernel kills them if the owner dies.
package local
