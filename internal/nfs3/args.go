package nfs3

import "pmsapp/internal/xdr"

// Numbers of the programs (RFC 1813, appendix I; RFC 1833), and of the NFS procedures.
const (
	Program      = 100003
	MountProgram = 100005
	PortProgram  = 100000
	Version      = 3

	ProcNull        = 0
	ProcGetattr     = 1
	ProcSetattr     = 2
	ProcLookup      = 3
	ProcAccess      = 4
	ProcReadlink    = 5
	ProcRead        = 6
	ProcWrite       = 7
	ProcCreate      = 8
	ProcMkdir       = 9
	ProcSymlink     = 10
	ProcMknod       = 11
	ProcRemove      = 12
	ProcRmdir       = 13
	ProcRename      = 14
	ProcLink        = 15
	ProcReaddir     = 16
	ProcReaddirplus = 17
	ProcFsstat      = 18
	ProcFsinfo      = 19
	ProcPathconf    = 20
	ProcCommit      = 21
	Procedures      = 22
)

// The bits of ACCESS.
const (
	AccessRead    = 0x01
	AccessLookup  = 0x02
	AccessModify  = 0x04
	AccessExtend  = 0x08
	AccessDelete  = 0x10
	AccessExecute = 0x20
)

// wireName bounds the names and paths that are decoded at all: those above MaxName and MaxPath get an answer of their own.
const wireName = 4096

// Handle is nfs_fh3, at most MaxHandle bytes. Decoded ones are parts of the call's memory.
type Handle []byte

// DirOp is diropargs3.
type DirOp struct {
	Dir  Handle
	Name string
}

// Args are the arguments of a procedure. Decode reads them from a call; what is malformed is the decoder's error.
type Args interface {
	Encode(*xdr.Encoder)
	Decode(*xdr.Decoder)
}

// The arguments of the procedures (RFC 1813 3.3); those of LOOKUP, REMOVE and RMDIR are DirOp, those of GETATTR, READLINK,
// FSSTAT, FSINFO and PATHCONF FileArgs.
type (
	FileArgs    struct{ File Handle }
	SetattrArgs struct {
		File  Handle
		Attr  SetAttr
		Guard *Time
	}
	AccessArgs struct {
		File   Handle
		Access uint32
	}
	ReadArgs struct {
		File   Handle
		Offset uint64
		Count  uint32
	}
	WriteArgs struct {
		File   Handle
		Offset uint64
		Count  uint32
		Stable Stable
		Data   []byte
	}
	CreateArgs struct {
		Where    DirOp
		How      CreateMode
		Attr     SetAttr
		Verifier Verifier
	}
	MkdirArgs struct {
		Where DirOp
		Attr  SetAttr
	}
	SymlinkArgs struct {
		Where DirOp
		Attr  SetAttr
		Text  string
	}
	MknodArgs struct {
		Where DirOp
		Type  FileType
		Attr  SetAttr
		Dev   [2]uint32
	}
	RenameArgs struct{ From, To DirOp }
	LinkArgs   struct {
		File Handle
		To   DirOp
	}
	ReaddirArgs struct {
		Dir      Handle
		Cookie   uint64
		Verifier Verifier
		Count    uint32
	}
	ReaddirplusArgs struct {
		Dir                Handle
		Cookie             uint64
		Verifier           Verifier
		DirCount, MaxCount uint32
	}
	CommitArgs struct {
		File   Handle
		Offset uint64
		Count  uint32
	}
)

func getHandle(d *xdr.Decoder) Handle { return d.Opaque(MaxHandle) }

func (a *DirOp) Encode(e *xdr.Encoder) { e.Opaque(a.Dir); e.String(a.Name) }
func (a *DirOp) Decode(d *xdr.Decoder) { a.Dir = getHandle(d); a.Name = d.String(wireName) }

func (a *FileArgs) Encode(e *xdr.Encoder) { e.Opaque(a.File) }
func (a *FileArgs) Decode(d *xdr.Decoder) { a.File = getHandle(d) }

func (a *SetattrArgs) Encode(e *xdr.Encoder) {
	e.Opaque(a.File)
	PutSetAttr(e, a.Attr)
	e.Bool(a.Guard != nil)
	if a.Guard != nil {
		putTime(e, *a.Guard)
	}
}
func (a *SetattrArgs) Decode(d *xdr.Decoder) {
	a.File, a.Attr = getHandle(d), GetSetAttr(d)
	if d.Bool() {
		t := getTime(d)
		a.Guard = &t
	}
}

func (a *AccessArgs) Encode(e *xdr.Encoder) { e.Opaque(a.File); e.Uint32(a.Access) }
func (a *AccessArgs) Decode(d *xdr.Decoder) { a.File, a.Access = getHandle(d), d.Uint32() }

func (a *ReadArgs) Encode(e *xdr.Encoder) { e.Opaque(a.File); e.Uint64(a.Offset); e.Uint32(a.Count) }
func (a *ReadArgs) Decode(d *xdr.Decoder) {
	a.File, a.Offset, a.Count = getHandle(d), d.Uint64(), d.Uint32()
}

// EncodeHead writes everything but the data and their padding.
func (a *WriteArgs) EncodeHead(e *xdr.Encoder) {
	e.Opaque(a.File)
	e.Uint64(a.Offset)
	e.Uint32(a.Count)
	e.Uint32(uint32(a.Stable))
	e.Uint32(uint32(len(a.Data)))
}
func (a *WriteArgs) Encode(e *xdr.Encoder) {
	a.EncodeHead(e)
	e.Fixed(a.Data)
	e.Skip(xdr.Pad(len(a.Data)))
}
func (a *WriteArgs) Decode(d *xdr.Decoder) {
	a.File, a.Offset, a.Count, a.Stable = getHandle(d), d.Uint64(), d.Uint32(), Stable(d.Uint32())
	if a.Stable > FileSync {
		d.Fail(xdr.ErrSyntax)
	}
	a.Data = d.Opaque(MaxIO)
}

func (a *CreateArgs) Encode(e *xdr.Encoder) {
	a.Where.Encode(e)
	e.Uint32(uint32(a.How))
	if a.How == Exclusive {
		e.Fixed(a.Verifier[:])
	} else {
		PutSetAttr(e, a.Attr)
	}
}
func (a *CreateArgs) Decode(d *xdr.Decoder) {
	a.Where.Decode(d)
	switch a.How = CreateMode(d.Uint32()); a.How {
	case Unchecked, Guarded:
		a.Attr = GetSetAttr(d)
	case Exclusive:
		d.Fixed(a.Verifier[:])
	default:
		d.Fail(xdr.ErrSyntax)
	}
}

func (a *MkdirArgs) Encode(e *xdr.Encoder) { a.Where.Encode(e); PutSetAttr(e, a.Attr) }
func (a *MkdirArgs) Decode(d *xdr.Decoder) { a.Where.Decode(d); a.Attr = GetSetAttr(d) }

func (a *SymlinkArgs) Encode(e *xdr.Encoder) {
	a.Where.Encode(e)
	PutSetAttr(e, a.Attr)
	e.String(a.Text)
}
func (a *SymlinkArgs) Decode(d *xdr.Decoder) {
	a.Where.Decode(d)
	a.Attr, a.Text = GetSetAttr(d), d.String(wireName)
}

func (a *MknodArgs) Encode(e *xdr.Encoder) {
	a.Where.Encode(e)
	e.Uint32(uint32(a.Type))
	switch a.Type {
	case Block, Character:
		PutSetAttr(e, a.Attr)
		e.Uint32(a.Dev[0])
		e.Uint32(a.Dev[1])
	case Socket, FIFO:
		PutSetAttr(e, a.Attr)
	}
}
func (a *MknodArgs) Decode(d *xdr.Decoder) {
	a.Where.Decode(d)
	switch a.Type = FileType(d.Uint32()); a.Type {
	case Block, Character:
		a.Attr, a.Dev = GetSetAttr(d), [2]uint32{d.Uint32(), d.Uint32()}
	case Socket, FIFO:
		a.Attr = GetSetAttr(d)
	case Regular, Directory, Symlink: // void; the answer is ErrBadType
	default:
		d.Fail(xdr.ErrSyntax)
	}
}

func (a *RenameArgs) Encode(e *xdr.Encoder) { a.From.Encode(e); a.To.Encode(e) }
func (a *RenameArgs) Decode(d *xdr.Decoder) { a.From.Decode(d); a.To.Decode(d) }

func (a *LinkArgs) Encode(e *xdr.Encoder) { e.Opaque(a.File); a.To.Encode(e) }
func (a *LinkArgs) Decode(d *xdr.Decoder) { a.File = getHandle(d); a.To.Decode(d) }

func (a *ReaddirArgs) Encode(e *xdr.Encoder) {
	e.Opaque(a.Dir)
	e.Uint64(a.Cookie)
	e.Fixed(a.Verifier[:])
	e.Uint32(a.Count)
}
func (a *ReaddirArgs) Decode(d *xdr.Decoder) {
	a.Dir, a.Cookie = getHandle(d), d.Uint64()
	d.Fixed(a.Verifier[:])
	a.Count = d.Uint32()
}

func (a *ReaddirplusArgs) Encode(e *xdr.Encoder) {
	e.Opaque(a.Dir)
	e.Uint64(a.Cookie)
	e.Fixed(a.Verifier[:])
	e.Uint32(a.DirCount)
	e.Uint32(a.MaxCount)
}
func (a *ReaddirplusArgs) Decode(d *xdr.Decoder) {
	a.Dir, a.Cookie = getHandle(d), d.Uint64()
	d.Fixed(a.Verifier[:])
	a.DirCount, a.MaxCount = d.Uint32(), d.Uint32()
}

func (a *CommitArgs) Encode(e *xdr.Encoder) { e.Opaque(a.File); e.Uint64(a.Offset); e.Uint32(a.Count) }
func (a *CommitArgs) Decode(d *xdr.Decoder) {
	a.File, a.Offset, a.Count = getHandle(d), d.Uint64(), d.Uint32()
}

// NewArgs returns empty arguments of a procedure, nil for NULL and for what is no procedure.
func NewArgs(proc uint32) Args {
	switch proc {
	case ProcGetattr, ProcReadlink, ProcFsstat, ProcFsinfo, ProcPathconf:
		return new(FileArgs)
	case ProcLookup, ProcRemove, ProcRmdir:
		return new(DirOp)
	case ProcSetattr:
		return new(SetattrArgs)
	case ProcAccess:
		return new(AccessArgs)
	case ProcRead:
		return new(ReadArgs)
	case ProcWrite:
		return new(WriteArgs)
	case ProcCreate:
		return new(CreateArgs)
	case ProcMkdir:
		return new(MkdirArgs)
	case ProcSymlink:
		return new(SymlinkArgs)
	case ProcMknod:
		return new(MknodArgs)
	case ProcRename:
		return new(RenameArgs)
	case ProcLink:
		return new(LinkArgs)
	case ProcReaddir:
		return new(ReaddirArgs)
	case ProcReaddirplus:
		return new(ReaddirplusArgs)
	case ProcCommit:
		return new(CommitArgs)
	}
	return nil
}
