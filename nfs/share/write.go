package share

import (
	"cmp"
	"context"
	"errors"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// Write implements nfs.Share. What it answers is durable, with all that is needed to read it back: nfs3.FileSync. Only where the
// volume's durability is memory, bytes of a file within its size may be unstable, if that is all that is asked for.
func (s *Share) Write(ctx context.Context, r nfs.Ref, off uint64, p []byte, how nfs3.Stable) (nfs.WriteResult, error) {
	if off > nfs3.MaxFile || uint64(len(p)) > nfs3.MaxFile-off {
		return nfs.WriteResult{}, s.confirmed(ctx, nfs3.ErrFBig)
	}
	f := s.files.get(r.Ino)
	defer s.files.put(f)
	lo, hi := int64(off), int64(off)+int64(len(p))
	block := int64(filetree.Block)
	alone := lo%block != 0 || hi%block != 0 // blocks are shared with others
	for {
		q := f.gate.enter(lo&^(block-1), roundUp(hi), alone)
		err := s.mayWrite(ctx, f, r, hi)
		if err == nil {
			var out nfs.WriteResult
			if out, err = s.write(ctx, f, r, lo, p, how); err == nil {
				f.gate.leave(q)
				return out, nil
			}
		}
		f.gate.leave(q)
		if !errors.Is(err, errUnclean) {
			return nfs.WriteResult{Wcc: s.wcc(r)}, s.refused(ctx, err)
		}
		q = f.gate.enter(0, filetree.MaxFile, true)
		err = s.cleanTail(ctx, f, r)
		f.gate.leave(q)
		if err != nil {
			return nfs.WriteResult{Wcc: s.wcc(r)}, s.refused(ctx, err)
		}
	}
}

// errUnclean says that the file must be made clean behind its end before it grows.
var errUnclean = errors.New("share: behind the end of the file may be bytes")

// mayWrite looks at the file behind the gate.
func (s *Share) mayWrite(ctx context.Context, f *file, r nfs.Ref, end int64) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := s.tree() // with mu: what is pending, or in the tree, is seen
	if err != nil {
		return err
	}
	n, err := regular(t, r)
	if err != nil {
		return err
	}
	if end > n.Size && !f.clean {
		if t.MappedEnd(r.Ino) > n.Size {
			return errUnclean
		}
		f.clean = true
	}
	return nil
}

// cleanTail makes what the file's extents have behind its end read as zeros. The gate is held alone.
func (s *Share) cleanTail(ctx context.Context, f *file, r nfs.Ref) error {
	pin := s.pins.enter()
	defer s.pins.leave(pin)
	t, err := s.tree()
	if err != nil {
		return err
	}
	n, err := regular(t, r)
	if err != nil {
		return err
	}
	var zero []*block.Request
	for _, x := range t.Extents(r.Ino, n.Size, filetree.MaxFile, 1<<30) {
		from := max(n.Size-x.File, 0)
		if part := from % s.block; part != 0 {
			b := block.Get(int(s.block))
			defer block.Put(b)
			at := x.Vol + from - part
			if err := s.io([]*block.Request{{Op: block.Read, Off: at, Len: s.block, Data: b}}); err != nil {
				return err
			}
			clear(b[part:])
			if err := s.io([]*block.Request{{Op: block.Write, Off: at, Len: s.block, Data: b, FUA: true}}); err != nil {
				return err
			}
			from += s.block - part
		}
		if from < x.Len {
			zero = append(zero, &block.Request{Op: block.Zero, Off: x.Vol + from, Len: x.Len - from, FUA: true})
		}
	}
	if err := s.io(zero); err != nil {
		return err
	}
	f.setClean(true)
	return nil
}

// write does a write behind the gate.
func (s *Share) write(ctx context.Context, f *file, r nfs.Ref, off int64, p []byte, how nfs3.Stable) (nfs.WriteResult, error) {
	end := off + int64(len(p))
	at, err := s.place(ctx, f, r, off, len(p))
	if err != nil {
		return nfs.WriteResult{}, err
	}
	defer s.pins.leave(at.pin)
	mine := at.mine
	commits := len(p) > 0 && (len(mine) > 0 || len(at.others) > 0 || end > at.size)
	if commits || len(p) == 0 || !s.volatile {
		how = nfs3.FileSync // data is durable before a size or an extent that shows it
	}
	if !commits && len(p) > 0 {
		err = s.mark(ctx, f)
	}
	if err == nil {
		err = s.store(at.segments, p, how != nfs3.Unstable)
	}
	for _, o := range at.others { // after a failure too: what was stored shows with them or not at all, but not after the answer
		select {
		case <-o.done:
			err = cmp.Or(err, o.err)
		case <-s.ctx.Done():
			err = cmp.Or(err, context.Cause(s.ctx))
		}
	}
	f.used(s.cfg.Now().UnixNano())
	var change filetree.Change
	switch {
	case err != nil:
	case len(p) == 0:
		err = s.Confirm(ctx)
	case commits:
		op := filetree.Op{Kind: filetree.Write, Ino: r.Ino, Size: end}
		for _, m := range mine {
			op.Spans = append(op.Spans, m.Span)
		}
		var res filetree.Result
		// Not with ctx: the data is there, and others may wait for these extents.
		res, err = s.change(s.ctx, op)
		if change = res.File; err == nil && f.shown() >= change.After.Ctime {
			err = s.shown(f) // or the size would have changed without a later time
		}
	default:
		err = s.shown(f)
	}
	f.finish(mine, err)
	if err != nil {
		f.setClean(false)
		spans := make([]filetree.Span, 0, len(mine))
		for _, m := range mine {
			spans = append(spans, filetree.Span{Vol: m.Vol, Len: m.Len})
		}
		s.giveBack(spans)
		return nfs.WriteResult{}, err
	}
	return nfs.WriteResult{Wcc: s.changed(change, r), Committed: how, Verifier: s.verifier()}, nil
}

// mark has the tree know that the file's times may run ahead of it.
func (s *Share) mark(ctx context.Context, f *file) error {
	if err := f.marking.take(ctx, s.ctx); err != nil {
		return err
	}
	defer f.marking.give()
	if f.isMarked() {
		return nil
	}
	_, err := s.change(ctx, filetree.Op{Kind: filetree.Mark, Ino: f.ino})
	if errors.Is(err, nfs3.ErrNoSpace) {
		return nil // too many are marked: the times are committed with each write
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.marked = true
	f.mu.Unlock()
	return nil
}

// shown gives a file that was written a new time.
func (s *Share) shown(f *file) error {
	if !f.isMarked() {
		_, err := s.change(s.ctx, filetree.Op{Kind: filetree.Write, Ino: f.ino})
		return err
	}
	for {
		if t, ok := s.times.show(); ok {
			f.wrote(t)
			return nil
		}
		if _, err := s.change(s.ctx); err != nil { // a higher ceiling
			return err
		}
	}
}

// store writes data to its places, and returns when it is durable on every in-sync member, or in their memory. Blocks that it does not fill are
// read first; the gate keeps others off them.
func (s *Share) store(segments []segment, p []byte, durable bool) error {
	var reads, writes []*block.Request
	for _, g := range segments {
		data := p[g.at : g.at+g.n]
		for _, part := range split(g.vol, int64(len(data)), s.block) {
			d := data[part.at : part.at+part.n]
			if part.whole {
				writes = append(writes, &block.Request{Op: block.Write, Off: g.vol + part.at, Len: part.n, Data: d, FUA: durable})
				continue
			}
			at := (g.vol + part.at) &^ (s.block - 1)
			b := block.Get(int(s.block))
			defer block.Put(b)
			reads = append(reads, &block.Request{Op: block.Read, Off: at, Len: s.block, Data: b, Owner: partial{b[g.vol+part.at-at:], d}})
			writes = append(writes, &block.Request{Op: block.Write, Off: at, Len: s.block, Data: b, FUA: durable})
		}
	}
	if len(reads) > 0 {
		if err := s.io(reads); err != nil {
			return err
		}
		for _, q := range reads {
			d := q.Owner.(partial)
			copy(d.to, d.from)
		}
	}
	return s.io(writes)
}

// partial is what a block that is written in part gets.
type partial struct{ to, from []byte }

// part is n bytes from at on: whole blocks, or less than one.
type part struct {
	at, n int64
	whole bool
}

// split cuts n bytes at off into whole blocks and what is before and behind them.
func split(off, n, block int64) (all []part) {
	at := int64(0)
	if head := min((block-off%block)%block, n); head > 0 {
		all = append(all, part{0, head, false})
		at = head
	}
	if body := (n - at) &^ (block - 1); body > 0 {
		all = append(all, part{at, body, true})
		at += body
	}
	if at < n {
		all = append(all, part{at, n - at, false})
	}
	return all
}
