package poolfs

import (
	"encoding/binary"
	"strings"
)

// opKind is what an op does.
type opKind uint8

const (
	opCreate opKind = iota + 1 // of a file or directory
	opResize                   // of a file; it does not become shorter
	opMap                      // units of a file are given space
	opUnmap                    // units of a file become holes
	opRename                   // a file at the new name is removed
	opRemove                   // with all below it
)

const (
	mapOpSize  = 1 + 4*4
	maxName    = 255
	maxFile    = 64 << 40
	rootID     = 1
	createSize = 1 + 4 + 4 + 1 + 8 + 1 // and the name
)

// op is a change of what is known of files. A checkpoint is ops too: those that make everything anew.
type op struct {
	kind   opKind
	id     uint32
	parent uint32 // opCreate, opRename
	name   string
	dir    bool
	size   int64  // opCreate, opResize
	unit   uint32 // opMap, opUnmap: the first, of the file
	at     uint32 // opMap: the first, of the device
	count  uint32 // opMap, opUnmap
}

func (o op) append(b []byte) []byte {
	be := binary.BigEndian
	b = append(b, byte(o.kind))
	b = be.AppendUint32(b, o.id)
	switch o.kind {
	case opCreate:
		b = be.AppendUint32(b, o.parent)
		dir := byte(0)
		if o.dir {
			dir = 1
		}
		b = append(b, dir)
		b = be.AppendUint64(b, uint64(o.size))
		b = append(append(b, byte(len(o.name))), o.name...)
	case opResize:
		b = be.AppendUint64(b, uint64(o.size))
	case opMap:
		b = be.AppendUint32(b, o.unit)
		b = be.AppendUint32(b, o.at)
		b = be.AppendUint32(b, o.count)
	case opUnmap:
		b = be.AppendUint32(b, o.unit)
		b = be.AppendUint32(b, o.count)
	case opRename:
		b = be.AppendUint32(b, o.parent)
		b = append(append(b, byte(len(o.name))), o.name...)
	}
	return b
}

// reader takes fields off bytes; short says that there were too few.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte     { return r.take(1)[0] }
func (r *reader) u32() uint32  { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) size() int64  { return int64(binary.BigEndian.Uint64(r.take(8))) }
func (r *reader) name() string { return string(r.take(int(r.u8()))) }

// op reads the next op; State.apply judges its fields.
func (r *reader) op() (o op, err error) {
	o.kind, o.id = opKind(r.u8()), r.u32()
	switch o.kind {
	case opCreate:
		o.parent = r.u32()
		dir := r.u8()
		if dir > 1 {
			return o, damaged("a file of type %d", dir)
		}
		o.dir = dir == 1
		o.size, o.name = r.size(), r.name()
	case opResize:
		o.size = r.size()
	case opMap:
		o.unit, o.at, o.count = r.u32(), r.u32(), r.u32()
	case opUnmap:
		o.unit, o.count = r.u32(), r.u32()
	case opRename:
		o.parent, o.name = r.u32(), r.name()
	case opRemove:
	default:
		return o, damaged("an op of kind %d", o.kind)
	}
	if r.short {
		return o, damaged("an op is cut off")
	}
	return o, nil
}

func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxName && !strings.ContainsAny(s, "/\x00")
}
