// Package cluster is membership and consensus: hashicorp/raft over a catalog (package catalog) in bbolt, memberlist for who is
// there, and one TLS port for everything between nodes.
//
// DESIGN.md says why a node never votes twice in a term, or forgets what it acknowledged (invariant 9).
//
// One TCP port carries four kinds of streams, told apart by their first byte inside TLS: Raft, gossip, calls between nodes,
// and joins. All but joins need a certificate of the cluster's CA, whose common name is the node's id; a node that was
// removed is refused. Gossip's packets use the same port of UDP and are encrypted with a key of the cluster.
package cluster
