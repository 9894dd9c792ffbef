package target

import "pmsapp/internal/iscsi"

// window is the command window of a session (RFC 7143 4.2.2.1). It is pure; the session's mutex guards it.
//
// Invariant: commands accepted and not released, plus commands that may still be sent, are never more than size; so
// what size commands can take is a bound on the session's memory. max never moves backwards.
type window struct {
	exp, max uint32
	size     int
	taken    int // commands accepted in order and not released
	// early has the commands that came before their turn, by CmdSN; nil is one that was aborted before it came.
	early map[uint32]*request
}

func newWindow(first uint32, size int) window {
	return window{exp: first, max: first + uint32(size) - 1, size: size, early: make(map[uint32]*request)}
}

// verdict is what becomes of a command.
type verdict uint8

const (
	vIgnore verdict = iota // outside the window, or a duplicate: as if it had never come
	vNow                   // its turn
	vEarly                 // commands before it are missing
)

// arrive says what becomes of a command with a CmdSN. After vNow the next one is expected.
func (w *window) arrive(sn uint32) verdict {
	if !iscsi.SNInWindow(sn, w.exp, w.max) {
		return vIgnore
	}
	if _, dup := w.early[sn]; dup {
		return vIgnore
	}
	if sn != w.exp {
		return vEarly
	}
	w.advance()
	return vNow
}

func (w *window) advance() {
	w.exp++
	w.taken++
}

// next takes the command whose turn it is out of those that came early. ok says that there was one; r is nil if it was
// aborted, and then nothing is left to do for it.
func (w *window) next() (r *request, ok bool) {
	r, ok = w.early[w.exp]
	if !ok {
		return nil, false
	}
	delete(w.early, w.exp)
	w.advance()
	if r == nil {
		w.release()
	}
	return r, true
}

// skip makes a command that has not come yet count as come and aborted. It reports whether sn could be such a one.
func (w *window) skip(sn uint32) bool {
	if !iscsi.SNInWindow(sn, w.exp, w.max) {
		return false
	}
	if _, dup := w.early[sn]; dup {
		return false
	}
	w.early[sn] = nil
	return true
}

// release gives the place of an accepted command back.
func (w *window) release() {
	w.taken--
	if m := w.exp + uint32(w.size-w.taken) - 1; iscsi.SNLess(w.max, m) {
		w.max = m
	}
}
