// Package nfsdoor has programs that others wrote use the NFS front door before a share in memory: libnfs' tools, QEMU's,
// rpcinfo and showmount.
package nfsdoor
