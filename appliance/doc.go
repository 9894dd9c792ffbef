// Package appliance puts a node together: configuration, lifecycle, the wiring between cluster, target and replication, the
// admin's API, the virtual address. It decides little itself; what it does decide is who is served where, and in which order
// things begin and end (run.go, to be read from top to bottom).
package appliance
