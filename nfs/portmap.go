package nfs

import (
	"context"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/nfs/rpc"
)

// The procedures of portmap version 2 (RFC 1833 3). CALLIT is not served: it makes others' hosts seem to call.
const (
	portVersion = 2

	portNull  = 0
	portSet   = 1
	portUnset = 2
	portGet   = 3
	portDump  = 4

	tcp = 6
	udp = 17
)

// mapping is a program's port.
type mapping struct{ prog, vers, prot, port uint32 }

// mappings are those of this server, portmap itself first: XCP-ng asks for it.
func (p Ports) mappings() []mapping {
	return []mapping{
		{nfs3.PortProgram, portVersion, tcp, uint32(p.Portmap)}, {nfs3.PortProgram, portVersion, udp, uint32(p.Portmap)},
		{nfs3.MountProgram, mountVersion, tcp, uint32(p.Mount)}, {nfs3.MountProgram, mountVersion, udp, uint32(p.Mount)},
		{nfs3.Program, nfs3.Version, tcp, uint32(p.NFS)},
		{lockProgram, lockVersion, tcp, uint32(p.Mount)}, {lockProgram, lockVersion, udp, uint32(p.Mount)},
		{stateProgram, stateVersion, tcp, uint32(p.Mount)}, {stateProgram, stateVersion, udp, uint32(p.Mount)},
	}
}

// portmap answers portmap. Nobody registers anything with it.
func (s *Server) portmap(_ context.Context, rc *rpc.Call, out *rpc.Reply) error {
	switch rc.Proc {
	case portNull:
		return nil
	case portSet, portUnset, portGet:
		m := mapping{rc.Args.Uint32(), rc.Args.Uint32(), rc.Args.Uint32(), rc.Args.Uint32()}
		if rc.Args.Err() != nil {
			return sunrpc.GarbageArgs
		}
		if rc.Proc != portGet {
			out.Bool(false)
			return nil
		}
		out.Uint32(s.port(m))
		return nil
	case portDump:
		for _, m := range s.cfg.Ports.mappings() {
			out.Bool(true)
			for _, v := range [...]uint32{m.prog, m.vers, m.prot, m.port} {
				out.Uint32(v)
			}
		}
		out.Bool(false)
		return nil
	}
	return sunrpc.ProcUnavail
}

// port is the port of a program over a protocol, 0 if there is none. As other portmaps do, it answers for any version: the
// program says better which versions there are.
func (s *Server) port(want mapping) uint32 {
	for _, m := range s.cfg.Ports.mappings() {
		if m.prog == want.prog && m.prot == want.prot {
			return m.port
		}
	}
	return 0
}
