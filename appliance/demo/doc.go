// Package demo shows what pmsApp is for: three nodes on this machine, a volume with two replicas, and the death of the
// node that serves it while a program writes. It uses nothing but the product: real processes, the API, and iSCSI.
package demo
