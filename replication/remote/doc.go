// Package remote carries the words of package peer between nodes over iSCSI. Dialer and Session are the leader's end: a
// peer.Dialer and peer.Session over an initiator.Session. Server and Nexus are the end of the node that holds replicas:
// they decode commands, hand them to a peer.Session of the node's own replicas, and encode its answers. A Nexus knows
// nothing of the target that carries it; appliance adapts one to the other.
//
// # Login
//
// The target's name is TargetName(node). Both ends prove by CHAP that they know the cluster's key (Secrets), and both
// digests are CRC32C. The initiator sends two vendor keys:
//
//	X-app.pmsapp.cluster=<cluster id>
//	X-app.pmsapp.epoch=<decimal>
//
// The node echoes both. A node that has accepted a higher epoch refuses the login (02/02) with
// X-app.pmsapp.accepted=<that epoch>, which gives *peer.EpochError.
//
// # Commands
//
// Every command is a variable-length CDB (SPC-4 4.2.3) of 64 bytes to LUN 0. Numbers are big-endian.
//
//	byte  0     7Fh
//	      1     0 (control)
//	      2     1 (version of this layout)
//	      3     READ: 1 for Proved; WRITE, ZERO: 2 for Volatile
//	      4..6  0
//	      7     56 (additional CDB length)
//	      8..9  service action, see below
//	     10..15 0
//	     16..31 volume id
//	     32..39 offset in bytes
//	     40..47 length in bytes
//	     48..55 Seq; FENCE: the epoch again; FETCH: the token; DELETE: the first half of the pool's id, or 0
//	     56..63 Durable; DELETE: the other half
//
//	F001h FENCE     Data-In: an answer with a Fenced. It is the first command of a session
//	F002h POLL      Data-In: likewise
//	F003h FETCH     Data-In: the bytes of the body of answer Seq from offset on
//	F010h READ      Data-In: the data
//	F011h WRITE     Data-Out: the data
//	F012h ZERO
//	F013h CONFIRM
//	F014h CLEAR     Data-Out: 12 bytes for each region: region (4), Seq (8)
//	F015h READ MAP  Data-In: an answer with the replica's birth (16), its incarnation (16), the highest Seq (8), the number of Others (4), these (72
//	                bytes each), and 12 bytes for each active region: region (4), Seq (8)
//	F016h EXTENTS   Data-In: an answer with 16 bytes for each extent: offset (8), length (8)
//	F017h CREATE    Data-Out: a Spec
//	F018h DELETE
//	F019h RESET     Data-Out: a Spec
//	F01Ah SUMS      Data-In: an answer with the CRC-32C (4) of each block of 4096 bytes
//	F01Bh GROW      Data-Out: a Spec
//	F01Ch KNOW      Data-Out: 72 bytes for each other replica, an Other
//	F01Dh READ MISSED  Data-In: as EXTENTS; Seq and Durable are the birth of the replica whose map it is, or zeros
//	F01Eh ADD MISSED   Data-Out: the Other whose map it is, and 16 bytes for each extent
//	F01Fh DROP MISSED  Data-Out: likewise
//	F020h FLUSH
//	F021h RESERVE
//
// A Spec is "PMSS", version 1 (2), 0 (2), volume id (16), lineage (16), pool id (16), size (8), region (8): 72 bytes.
//
// An Other is the node (16), pool (16) and birth (16) of a replica, flags (4; bit 0: absent, bit 1: all), 0 (4), epoch (8), Seq (8).
//
// # Answers
//
// What has no fixed size comes as an answer: "PMSA", version 1 (2), the service action (2), the length of the body (8), a
// token (8), and the body or its beginning. If the body does not fit into the Data-In that the initiator offered, the node
// keeps it, the token is not 0, and FETCH gets the rest; a snapshot is thus read as a whole, whatever changes meanwhile.
//
// The body of a Fenced: the highest epoch (8), the number of pools (4), and for each pool: pool id (16),
// flags (4; bit 0: busy, bit 1: reverted), Previous (8), number of epoch ranges (4), number of replicas (4), for each range Lo (8) and Hi
// (8), for each replica volume id (16), lineage (16), pool id (16), size (8), region (8), flags (4; bit 0: foreign),
// incarnation (16), Seq (8), Durable (8), number of active regions (4).
//
// # Errors
//
// Errors are CHECK CONDITION with fixed-format sense data of 26 bytes, of which the last 8 are the accepted epoch or 0:
//
//	ErrNoSpace    DATA PROTECT     27h/07h  space allocation failed write protect
//	ErrMedium     MEDIUM ERROR     11h/00h  unrecovered read error; 0Ch/00h write error
//	ErrInvalid    ILLEGAL REQUEST  24h/00h  invalid field in CDB; 20h/00h for an unknown command
//	              ILLEGAL REQUEST  2Ch/00h  a command before FENCE, or FENCE twice
//	ErrNoReplica  ILLEGAL REQUEST  80h/01h
//	ErrEpoch      ABORTED COMMAND  80h/02h  the session can execute nothing any more
//	ErrLost       ABORTED COMMAND  80h/03h  likewise
//
// Whatever else comes back ends the session at the leader's end: a peer that is not understood is a peer that is lost.
package remote
