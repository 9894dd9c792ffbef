package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/peer/model"
	"pmsapp/replication/truth"
)

// submit begins a random request.
func (w *world) submit() {
	blocks := wSize / wBlock
	first := w.rng.IntN(blocks)
	if w.chance(50) {
		first = w.rng.IntN(12) // a crowd
	}
	n := 1 + w.rng.IntN(4)
	if w.chance(5) {
		n = 1 + w.rng.IntN(40)
	}
	n = min(n, blocks-first)
	op := &wOp{submitted: w.ops, deposed: w.deposed}
	w.ops++
	r := &block.Request{Off: int64(first * wBlock), Len: int64(n * wBlock)}
	switch x := w.rng.IntN(100); {
	case x < 50:
		w.value++
		op.value, op.write, r.Op = w.value, true, block.Write
		r.Data = make([]byte, r.Len)
		for i := range n {
			binary.LittleEndian.PutUint64(r.Data[i*wBlock:], op.value)
		}
	case x < 58:
		op.write, r.Op = true, block.Zero
	case x < 70:
		w.value++
		op.value, op.write, op.swap, r.Op = w.value, true, true, block.Update
		r.Data, r.Modify = make([]byte, r.Len), op.modify
	case x < 97:
		r.Op, r.Data = block.Read, make([]byte, r.Len)
	default:
		r.Op, r.Off, r.Len = block.Flush, 0, 0
		n = 0
	}
	op.r = r
	for i := range n {
		w.blocks[first+i] = append(w.blocks[first+i], op)
	}
	w.logf("submit %d op %d value %d blocks %d+%d", op.submitted, r.Op, op.value, first, n)
	w.live[r] = op
	w.core.Submit(r)
	w.effects()
}

// errRefused ends an update that changes nothing.
var errRefused = errors.New("refused")

// modify is what an update does with what it finds.
func (op *wOp) modify(r *block.Request) error {
	for at := int64(0); at < r.Len; at += wBlock {
		op.got = append(op.got, binary.LittleEndian.Uint64(r.Data[at:]))
	}
	if op.got[0]%4 == 3 {
		op.write = false
		return errRefused
	}
	for at := int64(0); at < r.Len; at += wBlock {
		binary.LittleEndian.PutUint64(r.Data[at:], op.value)
	}
	return nil
}

func (w *world) completed(op *wOp) {
	r := op.r
	if op.err == errRefused {
		op.err = nil
	}
	w.logf("complete %d: %v", op.submitted, op.err)
	switch {
	case op.err == nil && op.deposed:
		w.fail("request %d arrived after a member's node had accepted a newer epoch, and was answered", op.submitted)
	case op.err == nil && op.write:
		w.acks++
		w.checkRecorded(op)
		for _, p := range w.vol.InSync {
			n := w.node(p.Node)
			for at := r.Off; at < r.Off+r.Len; at += wBlock {
				if v := binary.LittleEndian.Uint64(n.bytes[at:]); v != op.value && !w.laterValue(op, at/wBlock, v) {
					w.fail("request %d acknowledged, but node %x has %d instead of %d at block %d", op.submitted, n.id[0], v, op.value, at/wBlock)
				}
			}
		}
	case op.err == nil && r.Op == block.Read:
		w.reads++
		for at := int64(0); at < r.Len; at += wBlock {
			op.got = append(op.got, binary.LittleEndian.Uint64(r.Data[at:]))
		}
	case op.err != nil && op.write:
		w.spoilt++
	}
	if errors.Is(op.err, block.ErrRange) {
		w.fail("request %d: %v", op.submitted, op.err)
	}
	w.settleOp(op)
}

// laterValue says whether a write that was submitted after op may have put v into block b: its turn comes before op is
// confirmed.
func (w *world) laterValue(op *wOp, b int64, v uint64) bool {
	return slices.ContainsFunc(w.blocks[b], func(o *wOp) bool { return o.submitted > op.submitted && o.write && o.value == v })
}

// settleOp goes through the histories of the op's blocks, in the order of submission, as far as they have ended.
func (w *world) settleOp(op *wOp) {
	for b := op.r.Off / wBlock; b < (op.r.Off+op.r.Len)/wBlock; b++ {
		for len(w.blocks[b]) > 0 && w.blocks[b][0].ended {
			o := w.blocks[b][0]
			w.blocks[b] = w.blocks[b][1:]
			if o.swap && o.err == nil && !w.cands[b][o.got[b-o.r.Off/wBlock]] {
				w.fail("update %d found %d in block %d, which may only be %v", o.submitted, o.got[b-o.r.Off/wBlock], b, w.cands[b])
			}
			switch {
			case o.write && o.err == nil:
				w.cands[b] = map[uint64]bool{o.value: true}
			case o.write:
				w.cands[b][o.value] = true
			case o.err == nil:
				v := o.got[b-o.r.Off/wBlock]
				if !w.cands[b][v] {
					w.fail("request %d read %d from block %d, which may only be %v", o.submitted, v, b, w.cands[b])
				}
				w.cands[b] = map[uint64]bool{v: true}
			}
		}
	}
}

func (w *world) step() {
	if w.ended != nil {
		w.takeOver()
		return
	}
	if w.chance(1) {
		w.nodes[w.rng.IntN(3)].keep(w.epoch)
	}
	switch x := w.rng.IntN(1000); {
	case x < 250 && len(w.live) < 12:
		w.submit()
	case x < 650 && len(w.calls) > 0:
		w.answer(w.rng.IntN(len(w.calls)))
	case x < 700 && len(w.calls) > 0:
		k := w.calls[w.rng.IntN(len(w.calls))]
		if !k.done {
			w.execute(k)
		}
	case x < 760 && len(w.props) > 0:
		w.decide(w.rng.IntN(len(w.props)), !w.calm && w.chance(40))
	case x < 762+w.eager && len(w.dials) > 0:
		w.dial()
	case x < 900:
		w.now += time.Duration(w.rng.IntN(60)) * time.Millisecond
		if w.chance(3) {
			w.now += time.Duration(w.rng.IntN(1500)) * time.Millisecond
		}
		w.core.Tick(w.now)
		w.effects()
	case x < 925 && !w.deposed:
		n := w.joinable()
		if n == nil {
			return
		}
		n.cut = false
		if w.chance(30) {
			w.putBack(n)
		}
		empty := w.chance(30)
		if n.session++; empty {
			clear(n.bytes)
			clear(n.marks)
			n.seq, n.durable = 0, 0
			n.rec = model.New(ids.New(), wRegions)
			if w.chance(30) {
				w.putBack(n)
			}
		}
		if err := w.core.StartResync(w.joinerOf(n, empty)); err == nil {
			w.logf("resync %x empty %v", n.id[0], empty)
			w.resyncs++
		}
		w.effects()
	case w.calm:
	case x < 935:
		w.cutNode(w.nodes[w.rng.IntN(len(w.nodes))], peer.ErrLost)
	case x < 940:
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		n.full = !n.full && w.chance(40)
		w.logf("full %x %v", n.id[0], n.full)
	case x < 943:
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		n.sick = []int{0, 0, 3, 20}[w.rng.IntN(4)]
		w.logf("sick %x %v", n.id[0], n.sick)
	case x < 943+w.often:
		w.takeOver()
	case x < 944+w.often:
		w.core.Drain()
		w.effects()
	case x < 951:
		w.depose()
		for range 4 {
			w.submit()
		}
	case x < 980:
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		for range 1 + w.rng.IntN(3) {
			n.bad[w.rng.Int64N(12)] = true // where the crowd is
		}
		w.logf("bad %x %v", n.id[0], n.bad)
	case x < 984:
		if w.core.StartScrub(ScrubOrder{Rate: 1 << 30, Now: w.clock()}) == nil {
			w.logf("scrub")
		}
		w.effects()
	case x < 985:
		w.core.StopScrub()
		w.effects()
	case x < 988 && w.core.rs != nil:
		w.core.StopResync(w.core.rs.node)
		w.effects()
	}
}

// depose lets one member accept a newer epoch, which is committed: what the old leader is asked from now on, it must not
// answer.
func (w *world) depose() {
	if w.deposed {
		return
	}
	w.deposed = true
	n := w.node(w.vol.InSync[w.rng.IntN(len(w.vol.InSync))].Node)
	n.epoch = w.epoch + 1
	w.logf("depose on %x", n.id[0])
	for _, k := range w.calls {
		if k.n == n && !k.done {
			if w.chance(50) {
				n.epoch--
				w.execute(k)
				n.epoch++
			} else {
				k.done, k.c.Err = true, peer.ErrEpoch
			}
		}
	}
}

func (w *world) joinerOf(n *wNode, empty bool) Joiner {
	return Joiner{Place: truth.Place{Node: n.id, Pool: ids.Pool{n.id[0]}}, Empty: empty, Accepted: n.accepts}
}

func (w *world) joinable() *wNode {
	for _, p := range w.vol.Replicas {
		if i := w.core.slotOf(p.Node); !w.inSet(p.Node) && (i < 0 || i == 0 && !w.core.concerned().has(0)) {
			n := w.node(p.Node)
			if !w.calm && w.shunned >= 0 && n == w.nodes[w.shunned] && w.chance(97) {
				continue
			}
			if slices.ContainsFunc(w.calls, func(k *wCall) bool { return k.n == n && k.c.Kind != peer.Confirm }) {
				continue
			}
			return n
		}
	}
	return nil
}

func (w *world) dial() {
	i := w.rng.IntN(len(w.dials))
	id := w.dials[i]
	w.dials = slices.Delete(w.dials, i, i+1)
	n := w.node(id)
	switch {
	case n.epoch > w.epoch:
		w.core.Unreachable(id, &peer.EpochError{Accepted: n.epoch})
	case !w.calm && w.chance(30):
		w.core.Unreachable(id, errors.New("refused"))
	default:
		n.cut = false
		w.logf("back %x", id[0])
		w.core.Back(id, n.seq, ids.ID{})
	}
	w.effects()
}

// calmDown ends all faults and waits until everything is well.
func (w *world) calmDown() {
	w.calm = true
	for _, n := range w.nodes {
		n.full, n.sick = false, 0
		clear(n.bad)
	}
	if w.ended != nil || w.deposed || w.core.draining {
		w.takeOver()
	}
	w.rest()
	w.checkMarks()
	for b := range w.blocks {
		for _, n := range w.nodes[:3] {
			if v := binary.LittleEndian.Uint64(n.bytes[b*wBlock:]); !w.cands[b][v] {
				w.fail("at rest node %x has %d in block %d, which may only be %v", n.id[0], v, b, w.cands[b])
			}
		}
	}
	w.equal()
	w.scrubAtRest()
}

// equal checks that all replicas are, and that nothing is left.
func (w *world) equal() {
	for _, n := range w.nodes[1:3] {
		if string(n.bytes) != string(w.nodes[0].bytes) {
			w.fail("at rest the replicas differ")
		}
	}
	if !w.core.Idle() || w.core.writes != 0 || w.core.live != 0 || w.core.order.root != nil || w.core.calls != 0 || w.core.mending != nil {
		w.fail("at rest something is left: %+v", w.core)
	}
}

// scrubAtRest damages a member in two ways and scrubs: all of it is found and put right.
func (w *world) scrubAtRest() {
	hurt := w.nodes[w.rng.IntN(3)]
	want := map[int64]bool{}
	for range 1 + w.rng.IntN(5) {
		want[w.rng.Int64N(wSize/wBlock)] = true
	}
	for b := range want {
		hurt.bad[b] = true
	}
	differs := (w.rng.Int64N(wSize / wBlock))
	for want[differs] {
		differs = (differs + 1) % (wSize / wBlock)
	}
	w.nodes[w.rng.IntN(3)].bytes[differs*wBlock+w.rng.Int64N(wBlock)] ^= 4
	w.scrubs, w.damaged = nil, true
	if err := w.core.StartScrub(ScrubOrder{Rate: 64 << 20, Now: w.clock()}); err != nil && w.core.scrub == nil {
		w.fail("scrub: %v", err)
	}
	w.effects()
	w.rest()
	if n := len(w.scrubs); n > 0 && w.scrubs[n-1].Stopped == nil && len(hurt.bad) > 0 || n == 0 { // one that was under way had passed it
		if err := w.core.StartScrub(ScrubOrder{Rate: 64 << 20, Now: w.clock()}); err != nil {
			w.fail("scrub: %v", err)
		}
		w.effects()
		w.rest()
	}
	w.equal()
	var rep ScrubReport
	for _, r := range w.scrubs {
		rep.Mended, rep.Differing, rep.Unreadable, rep.Bytes = rep.Mended+r.Mended, rep.Differing+r.Differing, rep.Unreadable+r.Unreadable, rep.Bytes+r.Bytes
	}
	// A bad block may have been written anew by the reconciliation of its region.
	if rep.Mended > int64(len(want))*wBlock || rep.Differing != wBlock || rep.Unreadable != 0 || rep.Bytes == 0 || len(hurt.bad) > 0 {
		w.fail("%d blocks were bad and one differed; the scrub says %+v, and %v are left", len(want), rep, hurt.bad)
	}
}

// rest lets everything that is under way come to its end.
func (w *world) rest() {
	quiet := func() bool {
		return len(w.live) == 0 && w.core.scrub == nil && len(w.core.mends) == 0 && w.core.mending == nil && len(w.calls) == 0 && len(w.props) == 0 && len(w.vol.InSync) == 3 &&
			w.core.rs == nil && len(w.core.regions) == 0
	}
	for i := 0; !quiet(); i++ {
		if i > 20000 {
			w.fail("does not come to rest: %d requests, %d calls, %d proposals, set %v, status %+v", len(w.live), len(w.calls), len(w.props), w.vol.InSync, w.core.Status())
		}
		if n := w.joinable(); n != nil && w.core.rs == nil {
			n.cut = false
			w.core.StartResync(w.joinerOf(n, false))
			w.effects()
		}
		switch {
		case len(w.calls) > 0 && w.chance(80):
			w.answer(w.rng.IntN(len(w.calls)))
		case len(w.props) > 0:
			w.decide(0, false)
		case len(w.dials) > 0:
			w.dial()
		default:
			w.now += 50 * time.Millisecond
			w.core.Tick(w.now)
			w.effects()
		}
	}
}

type failure string

func selfCheck(seed uint64, steps int) (w *world, bad string) {
	w = newWorld(seed, 4, 1+int(seed%3), nil)
	w.fail = func(format string, a ...any) { panic(failure(fmt.Sprintf(format, a...))) }
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				for _, l := range w.trace[max(0, len(w.trace)-60):] {
					fmt.Fprintln(os.Stderr, l)
				}
				panic(r)
			}
			bad = string(f)
		}
	}()
	w.takeOver()
	for range steps {
		w.step()
	}
	w.calmDown()
	return w, ""
}

// TestSelf drives a Core through random losses, answers, errors, take-overs and resyncs, and checks acknowledgements,
// order, marks, answers and the end. MIRROR_SEED=n runs one seed and prints its trace.
func TestSelf(t *testing.T) {
	from, n := uint64(1), uint64(120)
	if testing.Short() {
		n = 60
	}
	if s := os.Getenv("MIRROR_SEED"); s != "" {
		from, _ = strconv.ParseUint(s, 10, 64)
		n = 1
	}
	if s := os.Getenv("MIRROR_SEEDS"); s != "" {
		n, _ = strconv.ParseUint(s, 10, 64)
	}
	var acks, reads, spoilt, joined, removed, takeovers, mended, putBacks, lost int
	for seed := from; seed < from+n; seed++ {
		w, bad := selfCheck(seed, 3000)
		if bad != "" {
			for _, l := range w.trace {
				t.Log(l)
			}
			t.Fatalf("seed %d: %s", seed, bad)
		}
		acks, reads, spoilt = acks+w.acks, reads+w.reads, spoilt+w.spoilt
		mended, putBacks, lost = mended+w.mended, putBacks+w.putBacks, lost+w.lost
		joined, removed, takeovers = joined+w.joined, removed+w.removed, takeovers+w.takeover
	}
	t.Logf("%d writes, %d reads, %d failed writes, %d joins, %d removals, %d take-overs, %d mended, %d put back, %d steps beside a lost block", acks, reads, spoilt, joined, removed, takeovers, mended, putBacks, lost)
	if n >= 60 && (acks == 0 || reads == 0 || spoilt == 0 || joined == 0 || removed == 0 || mended == 0 || putBacks == 0 || lost == 0) {
		t.Fatal("something never happens")
	}
}
