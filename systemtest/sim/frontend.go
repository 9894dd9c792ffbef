package sim

import (
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
)

// frontend models what target does for hosts: sessions, reinstatement, aborts, NOT READY where the volume is not served.
type frontend struct {
	n        *node
	sessions []*hostSession
}

type hostSession struct {
	fe        *frontend
	initiator int
	end       *simworld.End
	cmds      map[uint32]*hostCmd
	seen      []*op // what it brought to a mirror and was not answered
	over      bool
}

type hostCmd struct {
	s       *hostSession
	o       *op
	aborted bool
	old     []byte // a swap: what it found
}

// What hosts and portals say to each other.
type (
	msgLogin    struct{ initiator int }
	msgLoggedIn struct{}
	msgCmd      struct{ o *op }
	msgAbort    struct{ id uint32 }
	msgAborted  struct{ id uint32 }
	msgDone     struct {
		id     uint32
		status status
		data   []byte
	}
)

type status uint8

const (
	good status = iota
	notReady
	busy
	noSpace
	medium
)

func (s status) String() string {
	return [...]string{"good", "not ready", "busy", "no space", "medium error"}[s]
}

func (fe *frontend) accept(end *simworld.End) {
	s := &hostSession{fe: fe, initiator: -1, end: end, cmds: map[uint32]*hostCmd{}}
	fe.sessions = append(fe.sessions, s)
	end.Recv = s.recv
	end.Closed = s.drop
}

func (s *hostSession) recv(m any) {
	switch m := m.(type) {
	case msgLogin:
		s.login(m.initiator)
	case msgCmd:
		s.command(m.o)
	case msgAbort:
		if cmd := s.cmds[m.id]; cmd != nil {
			cmd.aborted = true
			delete(s.cmds, m.id)
			s.fe.n.c.settle(cmd.o)
		}
		s.send(msgAborted(m))
	}
}

// login ends the initiator's other sessions here before it answers (4): the mirror keeps the ranges of their commands.
func (s *hostSession) login(initiator int) {
	s.initiator = initiator
	old := s.fe.sessions
	s.fe.sessions = []*hostSession{s}
	for _, o := range old {
		if o == s {
			continue
		}
		if o.initiator != initiator {
			s.fe.sessions = append(s.fe.sessions, o)
			continue
		}
		o.drop()
		for _, x := range o.seen {
			s.fe.n.c.settle(x)
		}
	}
	s.send(msgLoggedIn{})
}

func (s *hostSession) command(o *op) {
	if c := s.fe.n.c; c.breaks(BreakDeadWrites) && !o.late && c.w.Rand.Chance(0.3) {
		o.late = true
		o.node, o.epoch = s.fe.n.host, 0
		s.seen = append(s.seen, o)
		s.fe.n.proc.After(c.w.Rand.Between(0, 3*time.Second), func() { s.command(o) }) // whatever becomes of the session
		return
	}
	m := s.fe.n.mirrorOf(o.vol)
	if m == nil {
		s.send(msgDone{o.id, notReady, nil})
		return
	}
	if int64(o.block+o.n)*blockSize > m.core.Geometry().Size {
		s.send(msgDone{o.id, notReady, nil}) // it does not know yet that the volume has grown
		return
	}
	o.node, o.epoch, o.order = s.fe.n.host, m.epoch, s.fe.n.c.hist.tick()
	cmd := &hostCmd{s: s, o: o}
	s.cmds[o.id] = cmd
	s.seen = append(s.seen, o)
	r := &block.Request{Off: int64(o.block) * blockSize, Len: int64(o.n) * blockSize, Owner: cmd, Done: cmd.done, FUA: o.fua}
	switch o.kind {
	case opRead:
		r.Op, r.Data = block.Read, make([]byte, r.Len)
	case opWrite:
		r.Op, r.Data, r.MayRetain = block.Write, make([]byte, r.Len), true
		for i := range o.n {
			fillBlock(r.Data[i*blockSize:(i+1)*blockSize], o.block+i, o.id)
		}
	case opZero:
		r.Op = block.Zero
	case opFlush:
		r.Op = block.Flush
	case opSwap:
		r.Op, r.Data, r.Modify = block.Update, make([]byte, r.Len), cmd.modify
	}
	m.submit(r)
}

// errRefused ends a swap that changes nothing.
var errRefused = errors.New("refused")

// modify is what a swap does with what it finds: as COMPARE AND WRITE, it refuses some of it.
func (cmd *hostCmd) modify(r *block.Request) error {
	o := cmd.o
	cmd.old = append([]byte(nil), r.Data...)
	if r.Data[8]&3 == 3 { // of the value of its first block
		o.kind = opRead // so it is from now on, to everybody
		return errRefused
	}
	for i := range o.n {
		fillBlock(r.Data[i*blockSize:(i+1)*blockSize], o.block+i, o.id)
	}
	return nil
}

func (cmd *hostCmd) done(r *block.Request) {
	s, o, c := cmd.s, cmd.o, cmd.s.fe.n.c
	if r.Op == block.Write && (!r.Retained || c.breaks(BreakRetained)) {
		for i := range r.Data { // which are somebody else's from now on
			r.Data[i] = 0xee
		}
	}
	var st status
	switch {
	case r.Err == nil, errors.Is(r.Err, errRefused):
		r.Err = nil
		c.answered(s.fe.n, o)
	case errors.Is(r.Err, block.ErrEnded):
		s.drop()
		return
	case errors.Is(r.Err, block.ErrHeld):
		st = busy
		if c.breaks(BreakHeldMedium) {
			st = medium
		}
	case errors.Is(r.Err, block.ErrNoSpace):
		st = noSpace
	case errors.Is(r.Err, block.ErrMedium):
		st = medium
	default:
		c.fail("a host's %v ended with %v", o, r.Err)
		return
	}
	if r.Err != nil {
		c.settle(o)
	}
	if s.over || cmd.aborted {
		return
	}
	delete(s.cmds, o.id)
	if r.Op == block.Update {
		r.Data = cmd.old
	}
	s.send(msgDone{o.id, st, r.Data})
}

func (s *hostSession) send(m any) {
	if !s.over {
		s.end.Send(m)
	}
}

// drop ends a session. Its commands go on in the mirror; nobody is answered.
func (s *hostSession) drop() {
	if s.over {
		return
	}
	s.over = true
	s.end.Close()
	for i, o := range s.fe.sessions {
		if o == s {
			s.fe.sessions = append(s.fe.sessions[:i:i], s.fe.sessions[i+1:]...)
		}
	}
}

// standby drops the sessions that have commands in a mirror that is closed (8).
func (fe *frontend) standby(v ids.Volume) {
	for _, s := range append([]*hostSession(nil), fe.sessions...) {
		for _, cmd := range s.cmds {
			if fe.n.c.volIDs[cmd.o.vol] == v {
				s.drop()
				break
			}
		}
	}
}
