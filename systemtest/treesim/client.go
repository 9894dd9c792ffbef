package treesim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
	"pmsapp/nfs/share"
)

// client makes calls, one after the other, each again until it is answered.
type client struct {
	c    *cluster
	id   int
	r    *rand.Rand
	xid  uint32
	gave int // calls that it gave up
}

// giveUps bounds the calls that a client gives up: each can have its effect at any time later.
const giveUps = 2

// call is one call: when it began, when it was answered, and how often it was made.
type call struct {
	begin, end int64
	tries      int
	status     nfs3.Status
	unknown    bool
}

// do makes a call until it is answered. mayGiveUp: it may be left alone, as by a client that dies.
func (k *client) do(mayGiveUp bool, f func(s *share.Share, who nfs.Caller) error) (a call) {
	k.xid++
	who := nfs.Caller{Client: netip.AddrFrom4([4]byte{192, 0, 2, byte(k.id)}), XID: k.xid, Sum: 7}
	a.begin = k.c.now()
	for {
		s := k.c.pick(k.r)
		if s == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		a.tries++
		err := f(s, who)
		if err == nil || errors.As(err, &a.status) {
			a.end = k.c.now()
			k.c.w.count(a)
			return a
		}
		if mayGiveUp && k.gave < giveUps && k.r.IntN(4) == 0 {
			k.gave++
			a.end, a.unknown = never, true
			return a
		}
		time.Sleep(time.Duration(k.r.IntN(3000)) * time.Microsecond)
	}
}

func (k *client) name() string { return string(rune('a' + k.r.IntN(5))) }

// work makes n calls.
func (k *client) work(ctx context.Context, n int) {
	for range n {
		if k.r.IntN(60) == 0 { // files come to rest
			time.Sleep(time.Duration(k.r.Int64N(int64(8 * time.Second))))
		}
		switch k.r.IntN(32) {
		case 0, 1:
			k.make(ctx, opCreate)
		case 2:
			k.make(ctx, opOpen)
		case 3, 4:
			k.make(ctx, opMkdir)
		case 5:
			k.change(ctx, opRemove)
		case 6:
			k.change(ctx, []nameKind{opRmdir, opLink}[k.r.IntN(2)])
		case 7, 8:
			k.change(ctx, opRename)
		case 9:
			k.list(ctx)
		case 10:
			k.lookup(ctx)
		case 11:
			k.stat(ctx)
		case 12:
			k.cut(ctx)
		case 13, 14, 15, 16, 17, 18:
			k.read(ctx)
		default:
			k.write(ctx)
		}
	}
}

func attrs(n nfs.Node) *nfs3.Attr {
	if n.Ref.Ino == 0 {
		return nil
	}
	return &n.Attr
}

func (k *client) make(ctx context.Context, kind nameKind) {
	dir, name := k.c.dir(k.r), k.name()
	mode := uint32(0o644)
	a := nfs3.SetAttr{Mode: &mode, UID: new(uint32), GID: new(uint32)}
	cut := kind == opOpen && k.r.IntN(2) == 0
	if cut {
		a.Size = new(uint64)
	}
	var m nfs.Made
	b := k.do(false, func(s *share.Share, who nfs.Caller) (err error) {
		switch kind {
		case opMkdir:
			m, err = s.Mkdir(ctx, who, nfs.Name{Dir: dir, Name: name}, a)
		case opOpen:
			m, err = s.Create(ctx, who, nfs.Name{Dir: dir, Name: name}, nfs.Create{Mode: nfs3.Unchecked, Attr: a})
		default:
			m, err = s.Create(ctx, who, nfs.Name{Dir: dir, Name: name}, nfs.Create{Mode: nfs3.Guarded, Attr: a})
		}
		return err
	})
	o := &nameOp{kind: kind, dir: dir.Ino, name: name, call: b.begin, ret: b.end, status: b.status}
	if b.tries > 1 && b.status == nfs3.ErrStale {
		// What it made was removed by somebody before it was told: nobody knows which file that was.
		k.c.skip()
		return
	}
	if b.status == nfs3.OK {
		o.got = m.Node.Ref.Ino
		k.c.found(m.Node.Ref, kind == opMkdir)
		if cut {
			k.c.data(o.got, &dataOp{kind: opCut, call: b.begin, ret: b.end})
		}
	}
	k.c.name(o)
	if b.status == nfs3.OK {
		k.c.seen(o.got, &m.Node.Attr, b)
	}
}

func (k *client) change(ctx context.Context, kind nameKind) {
	from, to := k.c.dir(k.r), k.c.dir(k.r)
	f, _ := k.c.file(k.r)
	o := &nameOp{kind: kind, dir: from.Ino, name: k.name()}
	if kind == opLink {
		if o.ino = f.Ino; o.ino == 0 {
			return
		}
	}
	if kind == opRename {
		o.dir2, o.name2 = to.Ino, k.name()
	}
	at := nfs.Name{Dir: from, Name: o.name}
	b := k.do(true, func(s *share.Share, who nfs.Caller) (err error) {
		switch kind {
		case opRemove:
			_, err = s.Remove(ctx, who, at)
		case opRmdir:
			_, err = s.Rmdir(ctx, who, at)
		case opLink:
			_, err = s.Link(ctx, who, f, at)
		default:
			_, err = s.Rename(ctx, who, at, nfs.Name{Dir: to, Name: o.name2})
		}
		return err
	})
	o.call, o.ret, o.status, o.unknown = b.begin, b.end, b.status, b.unknown
	k.c.name(o)
}

func (k *client) list(ctx context.Context) { k.listDir(ctx, k.c.dir(k.r)) }

func (k *client) listDir(ctx context.Context, dir nfs.Ref) (got []nfs.Entry) {
	b := k.do(false, func(s *share.Share, _ nfs.Caller) error {
		r, err := s.Readdir(ctx, dir, 0, nfs3.Verifier{}, 1000)
		got = r.Entries
		return err
	})
	o := &nameOp{kind: opList, dir: dir.Ino, call: b.begin, ret: b.end, status: b.status}
	for _, e := range got {
		o.list = append(o.list, entry{dir.Ino, e.Name, e.Node.Ref.Ino})
		k.c.seen(e.Node.Ref.Ino, &e.Node.Attr, b)
	}
	slices.SortFunc(o.list, order)
	k.c.name(o)
	return got
}

func (k *client) lookup(ctx context.Context) {
	dir, name := k.c.dir(k.r), k.name()
	var n nfs.Node
	b := k.do(false, func(s *share.Share, _ nfs.Caller) (err error) {
		n, _, err = s.Lookup(ctx, dir, name)
		return err
	})
	o := &nameOp{kind: opLookup, dir: dir.Ino, name: name, call: b.begin, ret: b.end, status: b.status}
	if b.status == nfs3.OK {
		o.got = n.Ref.Ino
		k.c.seen(o.got, attrs(n), b)
	}
	k.c.name(o)
}

func (k *client) stat(ctx context.Context) {
	f, isDir := k.c.file(k.r)
	if f.Ino == 0 || k.r.IntN(4) == 0 {
		f, isDir = k.c.dir(k.r), true
	}
	var a nfs3.Attr
	b := k.do(false, func(s *share.Share, _ nfs.Caller) (err error) {
		a, err = s.Getattr(ctx, f)
		return err
	})
	o := &nameOp{kind: opStat, ino: f.Ino, call: b.begin, ret: b.end, status: b.status}
	if b.status == nfs3.OK {
		o.links = a.Nlink
		k.c.seen(f.Ino, &a, b)
		if !isDir {
			k.c.data(f.Ino, &dataOp{kind: opRead, call: b.begin, ret: b.end, minSize: int(a.Filesize), maxSize: int(a.Filesize)})
		}
	}
	k.c.name(o)
}

func (k *client) cut(ctx context.Context) {
	f, _ := k.c.file(k.r)
	if f.Ino == 0 {
		return
	}
	size := uint64(points[k.r.IntN(len(points))])
	var guard *nfs3.Time
	if k.r.IntN(3) == 0 {
		k.do(false, func(s *share.Share, _ nfs.Caller) error {
			a, err := s.Getattr(ctx, f)
			guard = &a.Ctime
			return err
		})
	}
	var w nfs3.Wcc
	b := k.do(true, func(s *share.Share, who nfs.Caller) (err error) {
		w, err = s.Setattr(ctx, who, f, nfs3.SetAttr{Size: &size}, guard)
		return err
	})
	if b.unknown || b.status == nfs3.OK {
		k.c.data(f.Ino, &dataOp{kind: opCut, hi: int(size), call: b.begin, ret: b.end, maybe: b.unknown})
	}
	k.c.settled(f, w.After, b)
}

// part is a part of a file from a point to one of the n behind it: often whole blocks, and mostly where others are.
func (k *client) part(n int) (lo, hi int) {
	first := k.r.IntN(len(points) - 1)
	if k.r.IntN(3) > 0 {
		first = k.r.IntN(8)
	}
	last := min(first+1+k.r.IntN(n), len(points)-1)
	lo, hi = points[first], points[last]
	if a, b := lo&^4095, hi&^4095; k.r.IntN(2) == 0 && a < b {
		return a, b
	}
	return lo, hi
}

func (k *client) read(ctx context.Context) {
	f, _ := k.c.file(k.r)
	if f.Ino != 0 {
		lo, hi := k.part(12)
		k.readAt(ctx, f, lo, hi)
	}
}

func (k *client) readAt(ctx context.Context, f nfs.Ref, lo, hi int) {
	var r nfs.ReadResult
	var p []byte
	b := k.do(false, func(s *share.Share, _ nfs.Caller) (err error) {
		p = fill(hi-lo, 1<<31)
		r, err = s.Read(ctx, f, uint64(lo), p)
		return err
	})
	if b.status == nfs3.OK {
		o := &dataOp{kind: opRead, lo: lo, hi: hi, call: b.begin, ret: b.end, minSize: lo + r.N, maxSize: lo + r.N}
		switch {
		case r.N == hi-lo && !r.EOF:
			o.maxSize = 1 << 40
		case r.N == 0:
			o.minSize = 0
		}
		var err error
		if o.got, err = values(p[:r.N], lo, hi); err != nil {
			k.c.fail("file %d: %v", f.Ino, err)
		}
		if !r.EOF && r.N < hi-lo {
			k.c.fail("file %d: %d of %d bytes without the end", f.Ino, r.N, hi-lo)
		}
		k.c.data(f.Ino, o)
	}
	k.c.settled(f, r.Attr, b)
}

func (k *client) write(ctx context.Context) {
	f, _ := k.c.file(k.r)
	if f.Ino == 0 {
		return
	}
	lo, hi := k.part(6)
	value := k.c.value()
	p := fill(hi-lo, value)
	var w nfs.WriteResult
	b := k.do(true, func(s *share.Share, _ nfs.Caller) (err error) {
		w, err = s.Write(ctx, f, uint64(lo), p, nfs3.Unstable)
		if err == nil && (w.Committed != nfs3.FileSync) {
			err = fmt.Errorf("committed %d", w.Committed)
		}
		return err
	})
	// A WRITE that is sent again is done again; one that failed may have been done in part, and behind the end that shows only when
	// the file has grown.
	for range b.tries - 1 {
		k.c.data(f.Ino, &dataOp{kind: opWrite, lo: lo, hi: hi, value: value, call: b.begin, ret: b.end, maybe: true})
	}
	o := &dataOp{kind: opWrite, lo: lo, hi: hi, value: value, call: b.begin, ret: b.end, maybe: b.unknown || b.status != nfs3.OK}
	if b.status == nfs3.ErrNoSpace {
		o.ret = never
	}
	k.c.data(f.Ino, o)
	k.c.settled(f, w.Wcc.After, b)
}
