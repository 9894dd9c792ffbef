package mirror

// partList is the list of the parts of a request.
type partList struct {
	head, tail *part
	n          int
}

func (l *partList) push(p *part) {
	p.prev, p.next = l.tail, nil
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
	l.n++
}

func (l *partList) remove(p *part) {
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
	l.n--
}

// parkedList is the list of the parts that cannot start, or go on, now.
type parkedList struct {
	head, tail *part
	n          int
}

func (l *parkedList) push(p *part) {
	p.pprev, p.pnext = l.tail, nil
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.pnext = p
	}
	l.tail = p
	l.n++
}

func (l *parkedList) remove(p *part) {
	if p.pprev == nil {
		l.head = p.pnext
	} else {
		p.pprev.pnext = p.pnext
	}
	if p.pnext == nil {
		l.tail = p.pprev
	} else {
		p.pnext.pprev = p.pprev
	}
	p.pprev, p.pnext = nil, nil
	l.n--
}
