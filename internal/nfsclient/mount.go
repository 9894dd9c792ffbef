package nfsclient

import (
	"context"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/xdr"
)

// Fsstat is the answer of FSSTAT.
type Fsstat struct {
	Attr                                             *nfs3.Attr
	Total, Free, Avail, Files, FilesFree, FilesAvail uint64
	Invarsec                                         uint32
}

func (c *Client) Fsstat(ctx context.Context, f nfs3.Handle) (r Fsstat, err error) {
	err = c.do(ctx, nfs3.ProcFsstat, &nfs3.FileArgs{File: f}, func(d *xdr.Decoder, ok bool) {
		if r.Attr = nfs3.GetPostOp(d); ok {
			for _, v := range []*uint64{&r.Total, &r.Free, &r.Avail, &r.Files, &r.FilesFree, &r.FilesAvail} {
				*v = d.Uint64()
			}
			r.Invarsec = d.Uint32()
		}
	})
	return r, err
}

// Fsinfo is the answer of FSINFO.
type Fsinfo struct {
	Attr                                                 *nfs3.Attr
	RtMax, RtPref, RtMult, WtMax, WtPref, WtMult, DtPref uint32
	MaxFile                                              uint64
	TimeDelta                                            nfs3.Time
	Properties                                           uint32
}

func (c *Client) Fsinfo(ctx context.Context, f nfs3.Handle) (r Fsinfo, err error) {
	err = c.do(ctx, nfs3.ProcFsinfo, &nfs3.FileArgs{File: f}, func(d *xdr.Decoder, ok bool) {
		if r.Attr = nfs3.GetPostOp(d); ok {
			for _, v := range []*uint32{&r.RtMax, &r.RtPref, &r.RtMult, &r.WtMax, &r.WtPref, &r.WtMult, &r.DtPref} {
				*v = d.Uint32()
			}
			r.MaxFile = d.Uint64()
			r.TimeDelta = nfs3.Time{Seconds: d.Uint32(), Nseconds: d.Uint32()}
			r.Properties = d.Uint32()
		}
	})
	return r, err
}

// Pathconf is the answer of PATHCONF.
type Pathconf struct {
	Attr                                                      *nfs3.Attr
	LinkMax, NameMax                                          uint32
	NoTrunc, ChownRestricted, CaseInsensitive, CasePreserving bool
}

func (c *Client) Pathconf(ctx context.Context, f nfs3.Handle) (r Pathconf, err error) {
	err = c.do(ctx, nfs3.ProcPathconf, &nfs3.FileArgs{File: f}, func(d *xdr.Decoder, ok bool) {
		if r.Attr = nfs3.GetPostOp(d); ok {
			r.LinkMax, r.NameMax = d.Uint32(), d.Uint32()
			r.NoTrunc, r.ChownRestricted, r.CaseInsensitive, r.CasePreserving = d.Bool(), d.Bool(), d.Bool(), d.Bool()
		}
	})
	return r, err
}

// Mount asks for the handle of a directory by its path. The error is an nfs3.Status, whose numbers MOUNT shares.
func (c *Client) Mount(ctx context.Context, path string) (h nfs3.Handle, flavors []uint32, err error) {
	d, err := c.rpc.Call(ctx, nfs3.MountProgram, 3, 1, func(e *xdr.Encoder) { e.String(path) }, nil)
	if err != nil {
		return nil, nil, err
	}
	err = Result(d, func(d *xdr.Decoder, ok bool) {
		if ok {
			h = d.Opaque(nfs3.MaxHandle)
			for range min(d.Uint32(), 16) {
				flavors = append(flavors, d.Uint32())
			}
		}
	})
	return h, flavors, err
}

// Exported is an export and the groups of clients that may mount it; Mounted is a client and what it has mounted.
type (
	Exported struct {
		Path   string
		Groups []string
	}
	Mounted struct{ Client, Path string }
)

func (c *Client) Exports(ctx context.Context) (all []Exported, err error) {
	d, err := c.rpc.Call(ctx, nfs3.MountProgram, 3, 5, nil, nil)
	if err != nil {
		return nil, err
	}
	for d.Bool() {
		x := Exported{Path: d.String(nfs3.MaxPath)}
		for d.Bool() {
			x.Groups = append(x.Groups, d.String(nfs3.MaxName))
		}
		all = append(all, x)
	}
	return all, d.Err()
}

func (c *Client) Mounts(ctx context.Context) (all []Mounted, err error) {
	d, err := c.rpc.Call(ctx, nfs3.MountProgram, 3, 2, nil, nil)
	if err != nil {
		return nil, err
	}
	for d.Bool() {
		all = append(all, Mounted{d.String(nfs3.MaxName), d.String(nfs3.MaxPath)})
	}
	return all, d.Err()
}

// Unmount takes one mount off the server's list, UnmountAll all of this host's.
func (c *Client) Unmount(ctx context.Context, path string) error {
	_, err := c.rpc.Call(ctx, nfs3.MountProgram, 3, 3, func(e *xdr.Encoder) { e.String(path) }, nil)
	return err
}

func (c *Client) UnmountAll(ctx context.Context) error {
	_, err := c.rpc.Call(ctx, nfs3.MountProgram, 3, 4, nil, nil)
	return err
}

// Mapping is a program's port, by portmap.
type Mapping struct{ Prog, Vers, Prot, Port uint32 }

// Port asks portmap for the port of a program over a protocol (6 TCP, 17 UDP); 0 means that there is none.
func (c *Client) Port(ctx context.Context, prog, vers, prot uint32) (uint32, error) {
	d, err := c.rpc.Call(ctx, nfs3.PortProgram, 2, 3, func(e *xdr.Encoder) {
		for _, v := range [...]uint32{prog, vers, prot, 0} {
			e.Uint32(v)
		}
	}, nil)
	if err != nil {
		return 0, err
	}
	return d.Uint32(), d.Err()
}

func (c *Client) Mappings(ctx context.Context) (all []Mapping, err error) {
	d, err := c.rpc.Call(ctx, nfs3.PortProgram, 2, 4, nil, nil)
	if err != nil {
		return nil, err
	}
	for d.Bool() {
		all = append(all, Mapping{d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()})
	}
	return all, d.Err()
}
