package nfs

import (
	"context"

	"pmsapp/internal/block"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// replyHead is what a reply of READ, or of a listing, takes beside its data, at most.
const replyHead = 512

// read is RFC 1813 3.3.6.
func (c *call) read(ctx context.Context) error {
	var a nfs3.ReadArgs
	if err := c.args(&a); err != nil {
		return err
	}
	n := int(min(a.Count, nfs3.MaxIO))
	var r ReadResult
	var p []byte
	f, err := c.file(ctx, a.File)
	if err == nil {
		err = c.needData(f, mayRead)
	}
	if err == nil {
		if err := c.out.Reserve(ctx, n+replyHead); err != nil {
			return err
		}
		p = block.Get(n)
		r, err = c.export.Share.Read(ctx, f, a.Offset, p)
	}
	ok, err := c.status(ctx, err)
	if err != nil || !ok {
		block.Put(p)
		if err == nil {
			c.postOp(r.Attr)
		}
		return err
	}
	c.postOp(r.Attr)
	c.out.Uint32(uint32(r.N))
	c.out.Bool(r.EOF)
	c.out.Data(p[:r.N])
	return nil
}

// needData checks permissions to read or write a file's bytes. What is no regular file is for the share to refuse.
func (c *call) needData(f Ref, want uint32) error {
	a, found, err := c.peek(f)
	if err != nil || !found || a.Type != nfs3.Regular || c.user.mayData(a, want) {
		return err
	}
	return denied{nfs3.ErrAccess}
}

// write is RFC 1813 3.3.7.
func (c *call) write(ctx context.Context) error {
	var a nfs3.WriteArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var r WriteResult
	f, err := c.file(ctx, a.File)
	switch {
	case err != nil:
	case int64(a.Count) > int64(len(a.Data)):
		err = nfs3.ErrInval
	case a.Offset > nfs3.MaxFile-uint64(a.Count):
		err = nfs3.ErrFBig
	default:
		if err = c.needData(f, mayWrite); err == nil {
			r, err = c.writeOnce(ctx, f, a)
		}
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	c.wcc(r.Wcc)
	if ok {
		c.out.Uint32(a.Count)
		c.out.Uint32(uint32(r.Committed))
		c.out.Fixed(r.Verifier[:])
	}
	return nil
}

// writeOnce writes, unless this is a WRITE that comes late. Its retry is not under way: retries.enter has seen to that.
func (c *call) writeOnce(ctx context.Context, f Ref, a nfs3.WriteArgs) (WriteResult, error) {
	k := writeKey(c.rpc, f, a)
	if err := c.srv.late.check(k, c.rpc.Conn); err != nil {
		return WriteResult{}, err
	}
	if err := c.dropSetID(ctx, f, a); err != nil {
		return WriteResult{}, err
	}
	r, err := c.export.Share.Write(ctx, f, a.Offset, a.Data[:a.Count], a.Stable)
	if err == nil && c.rpc.Elder {
		c.srv.late.add(k, c.rpc.Conn)
	}
	return r, err
}

// dropSetID takes a program's right to run as its owner away before others than root write to it.
func (c *call) dropSetID(ctx context.Context, f Ref, w nfs3.WriteArgs) error {
	a, found, err := c.peek(f)
	if err != nil || !found || a.Type != nfs3.Regular || c.user.root() || dropSetID(a.FileMode) == a.FileMode {
		return err
	}
	mode := dropSetID(a.FileMode)
	var e xdr.Encoder
	w.Encode(&e)
	c.caller.Sum = c.sum(e.B)
	_, err = c.export.Share.Setattr(ctx, c.caller, f, nfs3.SetAttr{Mode: &mode}, nil)
	return err
}

// commit is RFC 1813 3.3.21.
func (c *call) commit(ctx context.Context) error {
	var a nfs3.CommitArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var r WriteResult
	f, err := c.file(ctx, a.File)
	if err == nil {
		err = c.needData(f, mayWrite)
	}
	if err == nil {
		r, err = c.export.Share.Commit(ctx, f, a.Offset, a.Count)
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	c.wcc(r.Wcc)
	if ok {
		c.out.Fixed(r.Verifier[:])
	}
	return nil
}

// writeData finds the place of the data in the begin of a record, if it is a WRITE of at least a page; else 0.
func writeData(b []byte) int {
	d := xdr.NewDecoder(b, nil)
	d.Uint32() // XID
	call, version, program, vers, proc := d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()
	if call != 0 || version != 2 || program != nfs3.Program || vers != nfs3.Version || proc != nfs3.ProcWrite {
		return 0
	}
	for range 2 {
		d.Uint32()
		d.Opaque(sunrpc.MaxAuth)
	}
	d.Opaque(nfs3.MaxHandle)
	d.Uint64()
	d.Uint32()
	d.Uint32()
	if n := d.Uint32(); d.Err() != nil || n < block.Align {
		return 0
	}
	return len(b) - d.Left()
}
