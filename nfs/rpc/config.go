package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// Program answers the calls of one RPC program.
type Program struct {
	Number    uint32
	Low, High uint32 // the versions that there are
	UDP       bool   // it is served over datagrams, too
	// Serve answers a call by writing its results to the Reply. An error that is a sunrpc.AcceptStat or a sunrpc.AuthStat
	// is an answer as well; any other error means that there is none, and drops the connection. The context ends with the
	// connection. It is called by many goroutines at once.
	Serve func(context.Context, *Call, *Reply) error
}

// Call is a call being served. Nothing of it may be used after Serve has returned.
type Call struct {
	sunrpc.Header
	Args   *xdr.Decoder
	Client netip.AddrPort
	Server netip.AddrPort // which the client has called
	// Conn numbers connections as they were accepted, from 1 on; 0 is a datagram. Elder tells that the same client, by its address, has one
	// open that was accepted before.
	Conn  uint64
	Elder bool
}

// Reply collects the results of a call: what is encoded, and then the data.
type Reply struct {
	xdr.Encoder
	data    []byte
	out     *conn // nil for datagrams
	reserve int64
}

// Reserve waits for n bytes of memory for the results, until ctx is done. Whoever sends more than a few KiB calls it once
// before taking the memory.
func (r *Reply) Reserve(ctx context.Context, n int) error {
	if r.out == nil || r.reserve != 0 {
		return nil
	}
	want := min(int64(n), r.out.srv.outgoing.share)
	if err := r.out.srv.outgoing.take(ctx, r.out, want); err != nil {
		return err
	}
	r.reserve = want
	return nil
}

// Data ends the results with a counted byte string. p comes from block.Get and now belongs to the reply.
func (r *Reply) Data(p []byte) {
	r.Uint32(uint32(len(p)))
	r.data = p
}

func (r *Reply) free() {
	block.Put(r.data)
	r.data = nil
}

// Config is what a Server is made of.
type Config struct {
	Programs []Program
	Log      *slog.Logger // nil discards
	// Place is told the begin of a long record and returns where in it data begin that should be aligned, or 0; may be nil.
	Place func([]byte) int
	// Known tells whether a client's address may send long records; may be nil. Others' are at most 4 KiB.
	Known func(netip.Addr) bool
	Limits
}

// Limits bound what clients can make a server use. Fields that are 0 get their value from DefaultLimits.
type Limits struct {
	Connections int           // at once
	PerClient   int           // connections of one client, by its address
	Calls       int           // of one connection, under way
	Record      int           // bytes of one call
	Memory      int64         // bytes of calls, and as much again of replies, of all connections; one connection takes a quarter at most
	Idle        time.Duration // a connection without calls for so long is closed
	Stall       time.Duration // so long may a begun record take to come, or replies to go
	Datagrams   int           // under way, of one socket
}

// DefaultLimits suit a small appliance: hypervisors open one connection or a few each, and come back when one is closed.
func DefaultLimits() Limits {
	return Limits{Connections: 1024, PerClient: 64, Calls: 128, Record: 1<<20 + 4096, Memory: 128 << 20, Idle: 15 * time.Minute,
		Stall: 30 * time.Second, Datagrams: 16}
}

// unknownRecord bounds the records of clients that are not Known.
const unknownRecord = 4096

// ErrConfig is returned for a Config out of its ranges.
var ErrConfig = errors.New("rpc: invalid configuration")

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *int }{{&l.Connections, &d.Connections}, {&l.PerClient, &d.PerClient}, {&l.Calls, &d.Calls}, {&l.Record, &d.Record},
		{&l.Datagrams, &d.Datagrams}} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	for _, f := range []struct{ have, def *time.Duration }{{&l.Idle, &d.Idle}, {&l.Stall, &d.Stall}} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	return l
}

// Validate checks l.
func (l Limits) Validate() error {
	if l.Connections < 1 || l.PerClient < 1 || l.Calls < 1 || l.Record < unknownRecord || l.Memory < 8*int64(l.Record) || l.Idle <= 0 ||
		l.Stall <= 0 || l.Datagrams < 1 {
		return fmt.Errorf("%w: limits", ErrConfig)
	}
	return nil
}
