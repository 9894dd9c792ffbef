// Package demo shows what pmsApp is for: three nodes on this machine, a LUN and a share with two replicas each, and the death of the
// node that serves them while programs write. It uses nothing but the product: real processes, the API, iSCSI and NFS.
package demo
