package nfsclient

import (
	"fmt"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/xdr"
)

// ReadResult reads the whole result of any NFS procedure but NULL, to see whether it is well formed. The error is its status
// if it is.
func ReadResult(proc uint32, d *xdr.Decoder) error {
	read, found := results[proc]
	if !found {
		return fmt.Errorf("%w: procedure %d", xdr.ErrSyntax, proc)
	}
	return Result(d, read)
}

// results has what follows the status, by procedure.
var results = map[uint32]func(*xdr.Decoder, bool){
	nfs3.ProcGetattr: func(d *xdr.Decoder, ok bool) {
		if ok {
			nfs3.GetAttr(d)
		}
	},
	nfs3.ProcLookup: func(d *xdr.Decoder, ok bool) {
		if ok {
			d.Opaque(nfs3.MaxHandle)
			nfs3.GetPostOp(d)
		}
		nfs3.GetPostOp(d)
	},
	nfs3.ProcSetattr: wcc(1, 0),
	nfs3.ProcAccess:  postOp(4),
	nfs3.ProcReadlink: func(d *xdr.Decoder, ok bool) {
		if nfs3.GetPostOp(d); ok {
			d.Opaque(nfs3.MaxPath)
		}
	},
	nfs3.ProcRead: func(d *xdr.Decoder, ok bool) {
		if nfs3.GetPostOp(d); ok {
			d.Uint32()
			d.Bool()
			d.Opaque(nfs3.MaxIO)
		}
	},
	nfs3.ProcWrite:   wcc(1, 4+4+nfs3.VerifierSz),
	nfs3.ProcCreate:  func(d *xdr.Decoder, ok bool) { Made(d, ok) },
	nfs3.ProcMkdir:   func(d *xdr.Decoder, ok bool) { Made(d, ok) },
	nfs3.ProcSymlink: func(d *xdr.Decoder, ok bool) { Made(d, ok) },
	nfs3.ProcMknod:   func(d *xdr.Decoder, ok bool) { Made(d, ok) },
	nfs3.ProcRemove:  wcc(1, 0),
	nfs3.ProcRmdir:   wcc(1, 0),
	nfs3.ProcRename:  wcc(2, 0),
	nfs3.ProcLink: func(d *xdr.Decoder, _ bool) {
		nfs3.GetPostOp(d)
		nfs3.GetWcc(d)
	},
	nfs3.ProcReaddir:     func(d *xdr.Decoder, ok bool) { listing(d, ok, false) },
	nfs3.ProcReaddirplus: func(d *xdr.Decoder, ok bool) { listing(d, ok, true) },
	nfs3.ProcFsstat:      postOp(6*8 + 4),
	nfs3.ProcFsinfo:      postOp(7*4 + 8 + 8 + 4),
	nfs3.ProcPathconf:    postOp(2*4 + 4*4),
	nfs3.ProcCommit:      wcc(1, nfs3.VerifierSz),
}

// wcc reads n wcc_data, and a result of some bytes.
func wcc(n, size int) func(*xdr.Decoder, bool) {
	return func(d *xdr.Decoder, ok bool) {
		for range n {
			nfs3.GetWcc(d)
		}
		if ok {
			d.Fixed(make([]byte, size))
		}
	}
}

// postOp reads post_op_attr, and a result of some bytes.
func postOp(size int) func(*xdr.Decoder, bool) {
	return func(d *xdr.Decoder, ok bool) {
		if nfs3.GetPostOp(d); ok {
			d.Fixed(make([]byte, size))
		}
	}
}
