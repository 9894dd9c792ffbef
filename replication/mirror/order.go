package mirror

// span is a range that a request or a copy locks: shared, or alone. Spans that overlap, of which at least one is alone,
// run in the order of their numbers (3).
type span struct {
	lo, hi int64 // bytes, widened to largest physical blocks; empty if equal
	alone  bool
	order  uint64
	// blockers is the number of earlier spans in the tree that this one waits for.
	blockers int
	req      *request // one of the four
	copy     *copier
	mend     *mend
	scrub    *scrubChunk

	prio        uint64
	max         int64 // the highest hi in this subtree
	left, right *span
	next        *span // in the ready queue
	queued      bool  // it is there
}

func (s *span) conflicts(t *span) bool {
	return s.lo < t.hi && t.lo < s.hi && (s.alone || t.alone)
}

func (s *span) before(t *span) bool {
	return s.lo < t.lo || s.lo == t.lo && s.order < t.order
}

func (s *span) fix() {
	s.max = s.hi
	if s.left != nil && s.left.max > s.max {
		s.max = s.left.max
	}
	if s.right != nil && s.right.max > s.max {
		s.max = s.right.max
	}
}

// order is a treap of spans by lo, each node with the highest hi below it. Looking for overlaps costs O(log n + hits).
type order struct {
	root *span
	seed uint64 // of the priorities; fixed, so that runs repeat
}

// enter adds s, whose order is above that of all spans in the tree, and counts its blockers.
func (o *order) enter(s *span) {
	s.blockers = blockers(o.root, s)
	o.seed ^= o.seed << 13
	o.seed ^= o.seed >> 7
	o.seed ^= o.seed << 17
	s.prio, s.left, s.right = o.seed, nil, nil
	o.root = insert(o.root, s)
}

// leave removes s and appends to ready those that now wait for nobody, in ascending order of lo.
func (o *order) leave(s *span, ready *spanQueue) {
	o.root = remove(o.root, s)
	unblock(o.root, s, ready)
}

func blockers(n, s *span) int {
	if n == nil || n.max <= s.lo {
		return 0
	}
	k := blockers(n.left, s)
	if n.conflicts(s) {
		k++
	}
	if n.lo < s.hi {
		k += blockers(n.right, s)
	}
	return k
}

func unblock(n, s *span, ready *spanQueue) {
	if n == nil || n.max <= s.lo {
		return
	}
	unblock(n.left, s, ready)
	if n.order > s.order && n.conflicts(s) {
		if n.blockers--; n.blockers == 0 {
			ready.push(n)
		}
	}
	if n.lo < s.hi {
		unblock(n.right, s, ready)
	}
}

// any tells whether f is true of a span that overlaps lo to hi.
func (o *order) any(lo, hi int64, f func(*span) bool) bool { return anySpan(o.root, lo, hi, f) }

func anySpan(n *span, lo, hi int64, f func(*span) bool) bool {
	if n == nil || n.max <= lo {
		return false
	}
	return anySpan(n.left, lo, hi, f) || n.lo < hi && (lo < n.hi && f(n) || anySpan(n.right, lo, hi, f))
}

func insert(n, s *span) *span {
	if n == nil {
		s.fix()
		return s
	}
	if s.before(n) {
		n.left = insert(n.left, s)
		if n.left.prio > n.prio {
			l := n.left
			n.left, l.right = l.right, n
			n.fix()
			n = l
		}
	} else {
		n.right = insert(n.right, s)
		if n.right.prio > n.prio {
			r := n.right
			n.right, r.left = r.left, n
			n.fix()
			n = r
		}
	}
	n.fix()
	return n
}

func remove(n, s *span) *span {
	switch {
	case n == nil:
		return nil
	case n == s:
		return merge(n.left, n.right)
	case s.before(n):
		n.left = remove(n.left, s)
	default:
		n.right = remove(n.right, s)
	}
	n.fix()
	return n
}

func merge(a, b *span) *span {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	if a.prio > b.prio {
		a.right = merge(a.right, b)
		a.fix()
		return a
	}
	b.left = merge(a, b.left)
	b.fix()
	return b
}

// spanQueue is a FIFO of spans that may run.
type spanQueue struct{ head, tail *span }

func (q *spanQueue) push(s *span) {
	s.next, s.queued = nil, true
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
}

func (q *spanQueue) pop() *span {
	s := q.head
	if s == nil {
		return nil
	}
	if q.head = s.next; q.head == nil {
		q.tail = nil
	}
	s.next = nil
	return s
}
