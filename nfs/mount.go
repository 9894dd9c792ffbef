package nfs

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs/rpc"
)

// The procedures of MOUNT version 3 (RFC 1813 5.2).
const (
	mountVersion = 3

	mountNull   = 0
	mountMnt    = 1
	mountDump   = 2
	mountUmnt   = 3
	mountAll    = 4
	mountExport = 5
)

// mount answers MOUNT. Its statuses are numbered as those of NFS.
func (s *Server) mount(ctx context.Context, rc *rpc.Call, out *rpc.Reply) error {
	switch rc.Proc {
	case mountNull:
		return nil
	case mountMnt:
		path, err := mountPath(rc.Args)
		if err != nil {
			return err
		}
		return s.mnt(ctx, rc, path, out)
	case mountDump:
		s.mounts.dump(&out.Encoder)
		return nil
	case mountUmnt:
		path, err := mountPath(rc.Args)
		if err == nil {
			s.mounts.remove(mounted{rc.Client.Addr(), path})
		}
		return err
	case mountAll:
		s.mounts.removeAll(rc.Client.Addr())
		return nil
	case mountExport:
		putExports(&out.Encoder, s.cfg.Exports.All())
		return nil
	}
	return sunrpc.ProcUnavail
}

// mountPath reads a dirpath, and takes slashes at its end away.
func mountPath(d *xdr.Decoder) (string, error) {
	path := d.String(nfs3.MaxPath)
	if d.Err() != nil {
		return "", sunrpc.GarbageArgs
	}
	return "/" + strings.Trim(path, "/"), nil
}

// mnt answers MNT: a share, or a directory in one.
func (s *Server) mnt(ctx context.Context, rc *rpc.Call, path string, out *rpc.Reply) error {
	c := &call{srv: s, rpc: rc, out: out, caller: Caller{Client: rc.Client.Addr(), XID: rc.XID}, leave: func() {}}
	defer func() { c.leave() }()
	ref, err := c.mounted(ctx, path)
	ok, err := c.status(ctx, err)
	if !ok {
		return err
	}
	c.handle(ref)
	out.Uint32(2) // flavors, the better first
	out.Uint32(sunrpc.AuthSys)
	out.Uint32(sunrpc.AuthNone)
	s.mounts.add(mounted{rc.Client.Addr(), path})
	return nil
}

// mounted walks from the share to the directory that a path names.
func (c *call) mounted(ctx context.Context, path string) (Ref, error) {
	e, rest, err := find(c.srv.cfg.Exports.All(), path)
	if err != nil {
		return Ref{}, err
	}
	// By the share's root handle, so that the checks are those of every call. Its inode is known when it is served.
	c.leave = c.srv.drains.enter(e.ID)
	if e, err = c.srv.cfg.Exports.ByShare(ctx, e.ID); errors.Is(err, nfs3.ErrStale) {
		return Ref{}, nfs3.ErrNoEnt
	} else if err != nil {
		return Ref{}, err
	}
	c.export = e
	var ok bool
	if c.rule, ok = e.rule(c.caller.Client); !ok {
		return Ref{}, denied{nfs3.ErrAccess}
	}
	c.user = c.rule.user(c.rpc.Cred)
	ref := e.Share.Root()
	attr, err := e.Share.Getattr(ctx, ref)
	for _, s := range rest {
		if err != nil {
			return Ref{}, err
		}
		if s == "." || s == ".." || s == "" {
			return Ref{}, nfs3.ErrInval
		}
		var n Node
		n, _, err = c.lookUp(ctx, ref, s)
		ref, attr = n.Ref, n.Attr
	}
	if err == nil && attr.Type != nfs3.Directory {
		err = nfs3.ErrNotDir
	}
	return ref, err
}

// find finds the export that a path begins with, and what of the path is left.
func find(all []*Export, path string) (*Export, []string, error) {
	var best *Export
	for _, e := range all {
		below, ok := strings.CutPrefix(path, e.Path)
		if ok && (below == "" || below[0] == '/') && (best == nil || len(e.Path) > len(best.Path)) {
			best = e
		}
	}
	if best == nil {
		return nil, nil, nfs3.ErrNoEnt
	}
	below := strings.Trim(path[len(best.Path):], "/")
	if below == "" {
		return best, nil, nil
	}
	return best, strings.Split(below, "/"), nil
}

// putExports answers EXPORT.
func putExports(e *xdr.Encoder, all []*Export) {
	for _, x := range all {
		e.Bool(true)
		e.String(x.Path)
		for _, r := range x.Rules {
			e.Bool(true)
			e.String(clients(r.Clients))
		}
		e.Bool(false)
	}
	e.Bool(false)
}

// clients is how clients at some addresses are written in EXPORT.
func clients(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "*"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// maxMounts bounds the list that DUMP shows. It is for people to look at, of this node and since its start: nothing
// depends on it (RFC 1813 5.2.2).
const maxMounts = 1024

type mounted struct {
	client netip.Addr
	path   string
}

type mounts struct {
	mu   sync.Mutex
	list []mounted // the oldest first
}

func (m *mounts) add(n mounted) {
	m.remove(n)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == maxMounts {
		m.list = append(m.list[:0], m.list[1:]...)
	}
	m.list = append(m.list, n)
}

func (m *mounts) remove(n mounted) { m.removeIf(func(o mounted) bool { return o == n }) }

func (m *mounts) removeAll(client netip.Addr) {
	m.removeIf(func(o mounted) bool { return o.client == client })
}

func (m *mounts) removeIf(gone func(mounted) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.list[:0]
	for _, o := range m.list {
		if !gone(o) {
			kept = append(kept, o)
		}
	}
	m.list = kept
}

// dump answers DUMP.
func (m *mounts) dump(e *xdr.Encoder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.list {
		e.Bool(true)
		e.String(n.client.String())
		e.String(n.path)
	}
	e.Bool(false)
}
