package nfs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs/rpc"
)

// call is one NFS call on its way through a procedure.
type call struct {
	srv    *Server
	rpc    *rpc.Call
	out    *rpc.Reply
	caller Caller

	// of the first file handle:
	export *Export
	rule   Rule
	user   user
	leave  func() // ends the share's count of calls
}

// denied is a status that was decided on from what was peeked. It is answered after a confirmation only.
type denied struct{ nfs3.Status }

// confirmed makes a status that came of a peek one that is answered after a confirmation.
func confirmed(err error) error {
	var s nfs3.Status
	if errors.As(err, &s) {
		return denied{s}
	}
	return err
}

// args decodes the arguments.
func (c *call) args(a nfs3.Args) error {
	if changes(c.rpc.Proc) && c.rpc.Proc != nfs3.ProcWrite {
		c.caller.Sum = c.sum(c.rpc.Args.Rest())
	}
	a.Decode(c.rpc.Args)
	if c.rpc.Args.Err() != nil {
		return sunrpc.GarbageArgs
	}
	return nil
}

// sum is the checksum of a call with these arguments: who calls and what is in it, but not what a client may change when it
// sends the same call again (the stamp in its credentials).
func (c *call) sum(args []byte) uint64 {
	var e xdr.Encoder
	h := c.rpc.Header
	for _, v := range append([]uint32{h.Prog, h.Vers, h.Proc, h.Cred.Flavor, h.Cred.UID, h.Cred.GID}, h.Cred.Groups...) {
		e.Uint32(v)
	}
	s := sha256.Sum256(append(e.B, args...))
	return binary.BigEndian.Uint64(s[:])
}

// changes tells whether a procedure of NFS changes something: those are refused on a read-only export, and a retry of one waits
// for the end of the first.
func changes(proc uint32) bool {
	switch proc {
	case nfs3.ProcSetattr, nfs3.ProcWrite, nfs3.ProcCreate, nfs3.ProcMkdir, nfs3.ProcSymlink, nfs3.ProcMknod, nfs3.ProcRemove,
		nfs3.ProcRmdir, nfs3.ProcRename, nfs3.ProcLink:
		return true
	}
	return false
}

// file finds the file of a handle, the first of the call, and who calls.
func (c *call) file(ctx context.Context, h nfs3.Handle) (Ref, error) {
	id, ref, err := c.srv.handles.read(h)
	if err != nil {
		return ref, err
	}
	// Counted before the export is looked up: who takes an export away and drains then waits for all that still have it.
	leave := c.srv.drains.enter(id)
	e, err := c.srv.cfg.Exports.ByShare(ctx, id)
	if err != nil {
		leave()
		return ref, fmt.Errorf("share %s: %w", id, err)
	}
	c.export, c.leave = e, leave
	var ok bool
	if c.rule, ok = e.rule(c.caller.Client); !ok {
		return ref, denied{nfs3.ErrAccess}
	}
	c.user = c.rule.user(c.rpc.Cred)
	if c.rule.ReadOnly && c.rpc.Prog == nfs3.Program && changes(c.rpc.Proc) { // NLM numbers its procedures anew
		return ref, denied{nfs3.ErrROFS}
	}
	return ref, nil
}

// same finds the file of the second handle of a call, which must be of the same share.
func (c *call) same(h nfs3.Handle) (Ref, error) {
	id, ref, err := c.srv.handles.read(h)
	if err == nil && id != c.export.ID {
		err = nfs3.ErrXDev
	}
	return ref, err
}

// peek returns a file's attributes for checks. False: there is nothing to check; what is missing now may be missing because
// this very call, sent again, has removed it, so that is for the share to answer.
func (c *call) peek(r Ref) (nfs3.Attr, bool, error) {
	n, err := c.export.Share.Peek(r)
	return c.peeked(n, err)
}

// peekName also returns which file it is, the zero Ref if there is none.
func (c *call) peekName(at Name) (Ref, nfs3.Attr, bool, error) {
	n, err := c.export.Share.PeekName(at.Dir, at.Name)
	a, found, err := c.peeked(n, err)
	if !found {
		return Ref{}, a, false, err
	}
	return n.Ref, a, true, err
}

// maxMoves bounds how often names are checked anew because they were other files' when the change was to be made.
const maxMoves = 16

// unmoved has names checked and something done with them, and both again if a name has become another file's in between. If that does not
// end there is no answer.
func unmoved(checkAndDo func() error) (err error) {
	for range maxMoves {
		if err = checkAndDo(); !errors.Is(err, ErrMoved) {
			break
		}
	}
	return err
}

func (c *call) peeked(n Node, err error) (nfs3.Attr, bool, error) {
	var s nfs3.Status
	if errors.As(err, &s) {
		return nfs3.Attr{}, false, nil
	}
	return n.Attr, err == nil, err
}

// name checks a name that is made or taken away. RFC 1813 3.3.8 and others leave "." and ".." to the server.
func name(s string, special error) error {
	switch {
	case s == "" || strings.ContainsAny(s, "/\x00"):
		return nfs3.ErrInval
	case len(s) > nfs3.MaxName:
		return nfs3.ErrNameTooLong
	case s == "." || s == "..":
		return special
	}
	return nil
}

// status writes the status that a result begins with. An error that is none is returned: there is no answer then.
func (c *call) status(ctx context.Context, err error) (ok bool, _ error) {
	var d denied
	if errors.As(err, &d) {
		if err := c.export.Share.Confirm(ctx); err != nil {
			return false, err
		}
		err = d.Status
	}
	s := nfs3.OK
	if err != nil && !errors.As(err, &s) {
		return false, err
	}
	if s == nfs3.OK && err != nil { // an OK is no error; a share that returns it as one does not know what it did
		s = nfs3.ErrServerFault
	}
	c.out.Uint32(uint32(s))
	return s == nfs3.OK, nil
}

func (c *call) attr(a nfs3.Attr) {
	a.FSID = c.fsid()
	nfs3.PutAttr(&c.out.Encoder, &a)
}

func (c *call) postOp(a *nfs3.Attr) {
	c.out.Bool(a != nil)
	if a != nil {
		c.attr(*a)
	}
}

func (c *call) wcc(w nfs3.Wcc) {
	nfs3.PutWcc(&c.out.Encoder, nfs3.Wcc{Before: w.Before})
	if w.After != nil { // in the place of the "no attributes" that was just written
		c.out.Cut(c.out.Len() - 4)
		c.postOp(w.After)
	}
}

func (c *call) handle(r Ref) { c.out.Opaque(c.srv.handles.make(c.export.ID, r)) }

// fsid is a number of the share that differs from other shares'.
func (c *call) fsid() uint64 { return fsid(c.export) }

func fsid(e *Export) uint64 {
	return binary.BigEndian.Uint64(e.ID[:8]) ^ binary.BigEndian.Uint64(e.ID[8:])
}
