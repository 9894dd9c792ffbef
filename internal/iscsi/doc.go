// Package iscsi has what both ends of an iSCSI connection share (RFC 7143): PDUs and their framing, digests, text keys,
// the negotiation of a login, and CHAP. It keeps no clock and starts no goroutine. Negotiation and CHAP are pure;
// Reader and Writer do nothing but frame PDUs on a connection.
//
// Every length that arrives is compared with its bound before memory is taken for it, and the data segment of a PDU is
// read into a buffer of the caller's: a Reader never allocates after it was made.
package iscsi
