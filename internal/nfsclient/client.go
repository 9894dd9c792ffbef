// Package nfsclient is a client of NFS version 3 and of what it is mounted with (RFC 1813, 1833), for demonstrations and
// tests. It is a "hard" one: a call lasts until its context ends, over lost connections and failovers.
package nfsclient

import (
	"context"
	"fmt"
	"net"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// Client calls one server.
type Client struct{ rpc *sunrpc.Client }

// New starts a client. Close ends it.
func New(cfg sunrpc.ClientConfig) *Client { return &Client{sunrpc.NewClient(cfg)} }

// Dial returns a ClientConfig for root over TCP.
func Dial(address string) sunrpc.ClientConfig {
	return sunrpc.ClientConfig{Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}, Machine: "pmsapp",
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}}
}

func (c *Client) Close() { c.rpc.Close() }

// RPC is the client below.
func (c *Client) RPC() *sunrpc.Client { return c.rpc }

// do calls an NFS procedure. Its status, if it is not OK, is the error; read reads what follows in either case.
func (c *Client) do(ctx context.Context, proc uint32, a nfs3.Args, read func(d *xdr.Decoder, ok bool)) error {
	var args func(*xdr.Encoder)
	var data []byte
	switch a := a.(type) {
	case nil:
	case *nfs3.WriteArgs:
		args, data = a.EncodeHead, a.Data
	default:
		args = a.Encode
	}
	d, err := c.rpc.Call(ctx, nfs3.Program, nfs3.Version, proc, args, data)
	if err != nil {
		return fmt.Errorf("NFS procedure %d: %w", proc, err)
	}
	return Result(d, read)
}

// Result reads a status and what follows it.
func Result(d *xdr.Decoder, read func(d *xdr.Decoder, ok bool)) error {
	s := nfs3.Status(d.Uint32())
	if read != nil {
		read(d, s == nfs3.OK)
	}
	switch {
	case d.Err() != nil:
		return d.Err()
	case d.Left() != 0:
		return fmt.Errorf("%w: %d bytes too many", xdr.ErrSyntax, d.Left())
	case s != nfs3.OK:
		return s
	}
	return nil
}

// Null calls the procedure that does nothing.
func (c *Client) Null(ctx context.Context) error {
	_, err := c.rpc.Call(ctx, nfs3.Program, nfs3.Version, nfs3.ProcNull, nil, nil)
	return err
}

func (c *Client) Getattr(ctx context.Context, f nfs3.Handle) (a nfs3.Attr, err error) {
	err = c.do(ctx, nfs3.ProcGetattr, &nfs3.FileArgs{File: f}, func(d *xdr.Decoder, ok bool) {
		if ok {
			a = nfs3.GetAttr(d)
		}
	})
	return a, err
}

func (c *Client) Setattr(ctx context.Context, f nfs3.Handle, s nfs3.SetAttr, guard *nfs3.Time) (w nfs3.Wcc, err error) {
	err = c.do(ctx, nfs3.ProcSetattr, &nfs3.SetattrArgs{File: f, Attr: s, Guard: guard}, func(d *xdr.Decoder, _ bool) {
		w = nfs3.GetWcc(d)
	})
	return w, err
}

// Found is the answer of LOOKUP and of what makes a file. Wcc of a LOOKUP has After only.
type Found struct {
	File nfs3.Handle
	Attr *nfs3.Attr
	Dir  nfs3.Wcc
}

func (c *Client) Lookup(ctx context.Context, dir nfs3.Handle, name string) (r Found, err error) {
	err = c.do(ctx, nfs3.ProcLookup, &nfs3.DirOp{Dir: dir, Name: name}, func(d *xdr.Decoder, ok bool) {
		if ok {
			r.File, r.Attr = d.Opaque(nfs3.MaxHandle), nfs3.GetPostOp(d)
		}
		r.Dir.After = nfs3.GetPostOp(d)
	})
	return r, err
}

func (c *Client) Access(ctx context.Context, f nfs3.Handle, want uint32) (got uint32, attr *nfs3.Attr, err error) {
	err = c.do(ctx, nfs3.ProcAccess, &nfs3.AccessArgs{File: f, Access: want}, func(d *xdr.Decoder, ok bool) {
		if attr = nfs3.GetPostOp(d); ok {
			got = d.Uint32()
		}
	})
	return got, attr, err
}

func (c *Client) Readlink(ctx context.Context, f nfs3.Handle) (text string, attr *nfs3.Attr, err error) {
	err = c.do(ctx, nfs3.ProcReadlink, &nfs3.FileArgs{File: f}, func(d *xdr.Decoder, ok bool) {
		if attr = nfs3.GetPostOp(d); ok {
			text = d.String(nfs3.MaxPath)
		}
	})
	return text, attr, err
}

// Data is the answer of READ.
type Data struct {
	Data []byte
	EOF  bool
	Attr *nfs3.Attr
}

func (c *Client) Read(ctx context.Context, f nfs3.Handle, off uint64, n uint32) (r Data, err error) {
	err = c.do(ctx, nfs3.ProcRead, &nfs3.ReadArgs{File: f, Offset: off, Count: n}, func(d *xdr.Decoder, ok bool) {
		r.Attr = nfs3.GetPostOp(d)
		if !ok {
			return
		}
		count := d.Uint32()
		r.EOF = d.Bool()
		if r.Data = d.Opaque(nfs3.MaxIO); d.Err() == nil && int(count) != len(r.Data) {
			d.Fail(xdr.ErrSyntax)
		}
	})
	return r, err
}

// Written is the answer of WRITE and COMMIT.
type Written struct {
	Wcc       nfs3.Wcc
	Count     uint32
	Committed nfs3.Stable
	Verifier  nfs3.Verifier
}

func (c *Client) Write(ctx context.Context, f nfs3.Handle, off uint64, p []byte, how nfs3.Stable) (r Written, err error) {
	a := &nfs3.WriteArgs{File: f, Offset: off, Count: uint32(len(p)), Stable: how, Data: p}
	err = c.do(ctx, nfs3.ProcWrite, a, func(d *xdr.Decoder, ok bool) {
		if r.Wcc = nfs3.GetWcc(d); ok {
			r.Count, r.Committed = d.Uint32(), nfs3.Stable(d.Uint32())
			d.Fixed(r.Verifier[:])
		}
	})
	return r, err
}

func (c *Client) Commit(ctx context.Context, f nfs3.Handle, off uint64, n uint32) (r Written, err error) {
	err = c.do(ctx, nfs3.ProcCommit, &nfs3.CommitArgs{File: f, Offset: off, Count: n}, func(d *xdr.Decoder, ok bool) {
		if r.Wcc = nfs3.GetWcc(d); ok {
			d.Fixed(r.Verifier[:])
		}
	})
	return r, err
}
