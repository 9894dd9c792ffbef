package rpc

import (
	"context"
	"errors"

	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// errNoReply is the end of a call that cannot be answered because it is none.
var errNoReply = errors.New("rpc: not a call")

// serve decodes a call, has its program answer it, and leaves the whole reply in r, from offset at on. An error means that
// there is no answer. udp restricts it to programs that are served over datagrams.
func (s *Server) serve(ctx context.Context, d *xdr.Decoder, c *Call, r *Reply, udp bool) error {
	at := r.Len()
	h, err := sunrpc.ReadCall(d)
	c.Header, c.Args = h, d
	var auth sunrpc.AuthStat
	switch {
	case errors.Is(err, sunrpc.ErrMessage):
		return errNoReply
	case errors.Is(err, sunrpc.ErrVersion):
		sunrpc.WriteDenied(&r.Encoder, h.XID, 0)
		return nil
	case errors.As(err, &auth) && h.Proc != 0: // anybody may call the null procedures
		sunrpc.WriteDenied(&r.Encoder, h.XID, auth)
		return nil
	}
	p, ok := s.programs[h.Prog]
	if !ok || udp && !p.UDP {
		sunrpc.WriteAccepted(&r.Encoder, h.XID, sunrpc.ProgUnavail, 0, 0)
		return nil
	}
	if h.Vers < p.Low || h.Vers > p.High {
		sunrpc.WriteAccepted(&r.Encoder, h.XID, sunrpc.ProgMismatch, p.Low, p.High)
		return nil
	}
	sunrpc.WriteAccepted(&r.Encoder, h.XID, sunrpc.Success, 0, 0)
	if err = p.Serve(ctx, c, r); err == nil {
		return nil
	}
	r.Cut(at)
	r.free()
	var stat sunrpc.AcceptStat
	switch {
	case errors.As(err, &stat):
		sunrpc.WriteAccepted(&r.Encoder, h.XID, stat, p.Low, p.High)
	case errors.As(err, &auth):
		sunrpc.WriteDenied(&r.Encoder, h.XID, auth)
	default:
		return err
	}
	return nil
}
