// Package api is the admin's REST interface: its words, a server for any node, and a client.
//
// Every call is HTTPS with a certificate signed by the cluster's CA and carries the admin token; both are made by init. The
// token names the digest of the CA's certificate, so that a client needs nothing but the token and an address.
//
// Any node accepts any call. Those that change something, and those that only the leader can answer, are passed to the
// leader over the inter-node channel (Backend.Forward), at most once: a node that gets a forwarded call answers it itself.
// A call that changes something names a request id; repeated with the same id it has its effect once.
package api
