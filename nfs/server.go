package nfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/nfs/rpc"
)

// Config is what a Server is made of.
type Config struct {
	Exports Exports
	// Key makes file handles hard to guess. It is the same on every node and never changes: handles made with another key
	// are bad ones. At most 64 bytes; empty makes the check in a handle a mere checksum.
	Key   []byte
	Ports Ports
	// ClientPortmap is the port of the clients' portmap, asked when a lock is granted that a client has waited for; 111 if 0.
	ClientPortmap uint16
	Log           *slog.Logger // nil discards
	Limits        rpc.Limits
}

// Ports are what portmap tells clients.
type Ports struct {
	NFS     uint16 // TCP; 2049 is usual
	Mount   uint16 // TCP and UDP, also for locks and the state of hosts; may be the same as NFS
	Portmap uint16 // TCP and UDP; clients expect 111
}

// ErrConfig is returned for a Config that cannot be.
var ErrConfig = errors.New("nfs: invalid configuration")

// Server is the front door. It answers portmap, MOUNT, NLM, NSM and NFS on every socket that it is given, so that one port
// can do for all but the first; NFS over TCP only.
type Server struct {
	cfg     Config
	log     *slog.Logger
	handles handles
	rpc     *rpc.Server
	retries retries
	late    lateWrites
	drains  drains
	mounts  mounts
	grants  *grants
}

// New returns a Server. It starts no goroutine.
func New(cfg Config) (*Server, error) {
	if cfg.Exports == nil || len(cfg.Key) > 64 || cfg.Ports.NFS == 0 || cfg.Ports.Mount == 0 || cfg.Ports.Portmap == 0 {
		return nil, ErrConfig
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Log, handles: handles{cfg.Key}, retries: retries{busy: map[retryKey]chan struct{}{}},
		drains: drains{busy: map[ids.Volume]*shareCalls{}}}
	s.grants = newGrants(s)
	var err error
	s.rpc, err = rpc.New(rpc.Config{
		Programs: []rpc.Program{
			{Number: nfs3.Program, Low: nfs3.Version, High: nfs3.Version, Serve: s.nfs},
			{Number: nfs3.MountProgram, Low: mountVersion, High: mountVersion, UDP: true, Serve: s.mount},
			{Number: lockProgram, Low: lockVersion, High: lockVersion, UDP: true, Serve: s.nlm},
			{Number: stateProgram, Low: stateVersion, High: stateVersion, UDP: true, Serve: s.nsm},
			{Number: nfs3.PortProgram, Low: portVersion, High: portVersion, UDP: true, Serve: s.portmap},
		},
		Place: writeData, Known: s.known, Log: cfg.Log, Limits: cfg.Limits,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return s, nil
}

// Serve serves connections of l; ServePacket datagrams of p. Both return an error always: rpc.ErrShutdown after Shutdown.
func (s *Server) Serve(l net.Listener) error         { return s.rpc.Serve(l) }
func (s *Server) ServePacket(p net.PacketConn) error { return s.rpc.ServePacket(p) }

// Shutdown ends all: see rpc.Server.Shutdown.
func (s *Server) Shutdown(ctx context.Context) error {
	s.grants.close()
	return s.rpc.Shutdown(ctx)
}

// Drop ends all connections; calls under way get no answer (invariant 8).
func (s *Server) Drop(cause error) { s.rpc.Drop(cause) }

// Drain returns when every call of a share that had begun has ended (invariant 17): who changes an export or takes it away
// does so in Exports first.
func (s *Server) Drain(ctx context.Context, share ids.Volume) error { return s.drains.wait(ctx, share) }

// known tells whether a client may use any export.
func (s *Server) known(client netip.Addr) bool {
	for _, e := range s.cfg.Exports.All() {
		if _, ok := e.rule(client); ok {
			return true
		}
	}
	return false
}

// nfs answers the calls of NFS version 3.
func (s *Server) nfs(ctx context.Context, rc *rpc.Call, out *rpc.Reply) error {
	if rc.Proc == nfs3.ProcNull {
		return nil
	}
	if rc.Proc >= nfs3.Procedures {
		return sunrpc.ProcUnavail
	}
	c := &call{srv: s, rpc: rc, out: out, caller: Caller{Client: rc.Client.Addr(), XID: rc.XID}, leave: func() {}}
	defer func() { c.leave() }()
	if changes(rc.Proc) {
		leave, err := s.retries.enter(ctx, retryKey{rc.Client.Addr(), rc.XID, rc.Proc})
		if err != nil {
			return err
		}
		defer leave()
	}
	return procedures[rc.Proc](c, ctx)
}

// procedures are those of NFS version 3, by their numbers.
var procedures = [nfs3.Procedures]func(*call, context.Context) error{
	nfs3.ProcGetattr:     (*call).getattr,
	nfs3.ProcSetattr:     (*call).setattr,
	nfs3.ProcLookup:      (*call).lookup,
	nfs3.ProcAccess:      (*call).access,
	nfs3.ProcReadlink:    (*call).readlink,
	nfs3.ProcRead:        (*call).read,
	nfs3.ProcWrite:       (*call).write,
	nfs3.ProcCreate:      (*call).create,
	nfs3.ProcMkdir:       (*call).mkdir,
	nfs3.ProcSymlink:     (*call).symlink,
	nfs3.ProcMknod:       (*call).mknod,
	nfs3.ProcRemove:      (*call).remove,
	nfs3.ProcRmdir:       (*call).remove,
	nfs3.ProcRename:      (*call).rename,
	nfs3.ProcLink:        (*call).link,
	nfs3.ProcReaddir:     (*call).readdir,
	nfs3.ProcReaddirplus: (*call).readdirplus,
	nfs3.ProcFsstat:      (*call).fsstat,
	nfs3.ProcFsinfo:      (*call).fsinfo,
	nfs3.ProcPathconf:    (*call).pathconf,
	nfs3.ProcCommit:      (*call).commit,
}
