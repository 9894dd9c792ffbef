// Package nfs is the front door of NFS shares: RPC over TCP, portmap, MOUNT and NFS version 3 (RFC 5531, 1833, 1813).
// What a file tree is made of is not its business: it consumes the Exports and the Share of whoever adapts one to it.
package nfs
