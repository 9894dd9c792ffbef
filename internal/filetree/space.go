package filetree

// space is a set of bytes of the volume: spans that neither overlap nor touch.
type space struct {
	m   bmap[number, int64] // offset -> length
	sum int64
}

// has tells whether all of [off, off+n) is in the set.
func (s *space) has(off, n int64) bool {
	k, l, ok := s.m.floor(number(off))
	return ok && n > 0 && int64(k)+l >= off+n
}

// meets tells whether any of [off, off+n) is in the set.
func (s *space) meets(off, n int64) bool {
	k, l, ok := s.m.floor(number(off + n - 1))
	return ok && int64(k)+l > off
}

// add adds a span that the set does not meet.
func (s *space) add(e *edit, off, n int64) {
	s.sum += n
	if l, ok := s.m.get(number(off + n)); ok {
		s.m.delete(e, number(off+n))
		n += l
	}
	if off > 0 {
		if k, l, ok := s.m.floor(number(off - 1)); ok && int64(k)+l == off {
			off, n = int64(k), n+l
		}
	}
	s.m.set(e, number(off), n)
}

// remove takes away a span that the set has.
func (s *space) remove(e *edit, off, n int64) {
	k, l, _ := s.m.floor(number(off))
	s.sum -= n
	s.m.delete(e, k)
	if before := off - int64(k); before > 0 {
		s.m.set(e, k, before)
	}
	if after := int64(k) + l - off - n; after > 0 {
		s.m.set(e, number(off+n), after)
	}
}

// list returns up to n spans that end behind from.
func (s *space) list(from int64, n int) (all []Span) {
	if k, l, ok := s.m.floor(number(from)); ok && int64(k) < from && int64(k)+l > from && n > 0 {
		all = append(all, Span{Vol: int64(k), Len: l})
	}
	for k, l := range s.m.from(number(from)) {
		if len(all) >= n {
			break
		}
		all = append(all, Span{Vol: int64(k), Len: l})
	}
	return all
}
