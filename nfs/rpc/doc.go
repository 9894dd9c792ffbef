// Package rpc is a server of ONC RPC programs (RFC 5531): connections with many calls under way at once, and datagrams.
// What a program does is not its business. See ../DESIGN.md for why it is bounded.
package rpc
