// Package sunrpc has the messages of ONC RPC version 2 (RFC 5531) and the records that carry them over TCP, for servers
// and clients. Every length that comes from the network is bounded before memory is taken for it.
package sunrpc
