package sunrpc

import "pmsapp/internal/xdr"

const (
	accepted = 0
	denied   = 1

	rpcMismatch = 0
	authError   = 1
)

// WriteAccepted writes the header of a reply to an accepted call. The results follow it if stat is Success; low and high
// are the versions that there are, for ProgMismatch.
func WriteAccepted(e *xdr.Encoder, xid uint32, stat AcceptStat, low, high uint32) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(accepted)
	e.Uint32(AuthNone)
	e.Uint32(0)
	e.Uint32(uint32(stat))
	if stat == ProgMismatch {
		e.Uint32(low)
		e.Uint32(high)
	}
}

// WriteDenied writes a reply to a call whose credentials are refused, or, with stat 0, whose RPC version is.
func WriteDenied(e *xdr.Encoder, xid uint32, stat AuthStat) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(denied)
	if stat == 0 {
		e.Uint32(rpcMismatch)
		e.Uint32(version)
		e.Uint32(version)
		return
	}
	e.Uint32(authError)
	e.Uint32(uint32(stat))
}

// ReadReply reads the header of a reply; the results are what is left in d. Errors: ErrMessage, ErrVersion, an AcceptStat
// or an AuthStat, the XID being right with all but the first.
func ReadReply(d *xdr.Decoder) (xid uint32, err error) {
	xid = d.Uint32()
	if kind := d.Uint32(); d.Err() != nil || kind != msgReply {
		return xid, ErrMessage
	}
	switch d.Uint32() {
	case accepted:
		d.Uint32()
		d.Opaque(MaxAuth)
		stat := AcceptStat(d.Uint32())
		if d.Err() != nil {
			return xid, ErrMessage
		}
		if stat != Success {
			return xid, stat
		}
		return xid, nil
	case denied:
		why, stat := d.Uint32(), AuthStat(d.Uint32())
		switch {
		case d.Err() != nil || why > authError:
			return xid, ErrMessage
		case why == rpcMismatch:
			return xid, ErrVersion
		}
		return xid, stat
	}
	return xid, ErrMessage
}
