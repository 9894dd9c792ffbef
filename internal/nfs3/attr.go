package nfs3

import "pmsapp/internal/xdr"

// modeBits are the bits of a mode that mean something in NFS.
const modeBits = 0o7777

func putTime(e *xdr.Encoder, t Time) {
	e.Uint32(t.Seconds)
	e.Uint32(t.Nseconds)
}

func getTime(d *xdr.Decoder) Time { return Time{Seconds: d.Uint32(), Nseconds: d.Uint32()} }

// PutAttr writes fattr3.
func PutAttr(e *xdr.Encoder, a *Attr) {
	e.Uint32(uint32(a.Type))
	for _, v := range [...]uint32{a.FileMode & modeBits, a.Nlink, a.UID, a.GID} {
		e.Uint32(v)
	}
	e.Uint64(a.Filesize)
	e.Uint64(a.Used)
	e.Uint32(a.SpecData[0])
	e.Uint32(a.SpecData[1])
	e.Uint64(a.FSID)
	e.Uint64(a.Fileid)
	putTime(e, a.Atime)
	putTime(e, a.Mtime)
	putTime(e, a.Ctime)
}

// GetAttr reads fattr3.
func GetAttr(d *xdr.Decoder) Attr {
	var a Attr
	a.Type = FileType(d.Uint32())
	if d.Err() == nil && (a.Type < Regular || a.Type > FIFO) {
		d.Fail(xdr.ErrSyntax)
	}
	a.FileMode, a.Nlink, a.UID, a.GID = d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()
	a.Filesize, a.Used = d.Uint64(), d.Uint64()
	a.SpecData = [2]uint32{d.Uint32(), d.Uint32()}
	a.FSID, a.Fileid = d.Uint64(), d.Uint64()
	a.Atime, a.Mtime, a.Ctime = getTime(d), getTime(d), getTime(d)
	return a
}

// PutPostOp writes post_op_attr.
func PutPostOp(e *xdr.Encoder, a *Attr) {
	e.Bool(a != nil)
	if a != nil {
		PutAttr(e, a)
	}
}

// GetPostOp reads post_op_attr.
func GetPostOp(d *xdr.Decoder) *Attr {
	if !d.Bool() {
		return nil
	}
	a := GetAttr(d)
	return &a
}

// PutWcc writes wcc_data.
func PutWcc(e *xdr.Encoder, w Wcc) {
	e.Bool(w.Before != nil)
	if w.Before != nil {
		e.Uint64(w.Before.Size)
		putTime(e, w.Before.Mtime)
		putTime(e, w.Before.Ctime)
	}
	PutPostOp(e, w.After)
}

// GetWcc reads wcc_data.
func GetWcc(d *xdr.Decoder) Wcc {
	var w Wcc
	if d.Bool() {
		w.Before = &PreOp{Size: d.Uint64(), Mtime: getTime(d), Ctime: getTime(d)}
	}
	w.After = GetPostOp(d)
	return w
}

func putOptional(e *xdr.Encoder, v *uint32) {
	e.Bool(v != nil)
	if v != nil {
		e.Uint32(*v)
	}
}

func getOptional(d *xdr.Decoder) *uint32 {
	if !d.Bool() {
		return nil
	}
	v := d.Uint32()
	return &v
}

func putSetTime(e *xdr.Encoder, t SetTime) {
	e.Uint32(uint32(t.How))
	if t.How == ToClientTime {
		putTime(e, t.Time)
	}
}

func getSetTime(d *xdr.Decoder) SetTime {
	t := SetTime{How: TimeHow(d.Uint32())}
	switch {
	case t.How > ToClientTime:
		d.Fail(xdr.ErrSyntax)
	case t.How == ToClientTime:
		t.Time = getTime(d)
	}
	return t
}

// PutSetAttr writes sattr3.
func PutSetAttr(e *xdr.Encoder, a SetAttr) {
	putOptional(e, a.Mode)
	putOptional(e, a.UID)
	putOptional(e, a.GID)
	e.Bool(a.Size != nil)
	if a.Size != nil {
		e.Uint64(*a.Size)
	}
	putSetTime(e, a.Atime)
	putSetTime(e, a.Mtime)
}

// GetSetAttr reads sattr3. Bits of the mode that mean nothing are dropped.
func GetSetAttr(d *xdr.Decoder) SetAttr {
	a := SetAttr{Mode: getOptional(d), UID: getOptional(d), GID: getOptional(d)}
	if a.Mode != nil {
		*a.Mode &= modeBits
	}
	if d.Bool() {
		v := d.Uint64()
		a.Size = &v
	}
	a.Atime, a.Mtime = getSetTime(d), getSetTime(d)
	return a
}
