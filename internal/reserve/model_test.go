package reserve

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// model is the naive one: a table of keys, and the holders spelled out. It is written from the text of SPC-4, not from the code.
type model struct {
	keys    map[Nexus]uint64
	typ     Type
	holders map[Nexus]bool
	unit    Nexus
	gen     uint32
	ua      map[Notice]bool // without Seq
}

func newModel() *model {
	return &model{keys: map[Nexus]uint64{}, holders: map[Nexus]bool{}, ua: map[Notice]bool{}}
}

func (m *model) tell(but Nexus, code uint16) {
	for n := range m.keys {
		if n != but {
			m.ua[Notice{Nexus: n, Code: code}] = true
		}
	}
}

// drop takes a registration away; the reservation ends with its last holder.
func (m *model) drop(n Nexus, quiet bool) {
	delete(m.keys, n)
	if !m.holders[n] {
		return
	}
	delete(m.holders, n)
	if len(m.holders) == 0 {
		if !quiet && m.typ >= 5 {
			m.tell(n, ReservationsReleased)
		}
		m.typ = 0
	}
}

func (m *model) take(t Type, n Nexus) {
	m.typ, m.holders = t, map[Nexus]bool{n: true}
	m.spread()
}

// spread makes all who are registered holders of an all-registrants reservation.
func (m *model) spread() {
	if m.typ == 7 || m.typ == 8 {
		for n := range m.keys {
			m.holders[n] = true
		}
	}
}

func (m *model) do(c Command) Outcome {
	defer m.spread()
	n := c.Nexus
	key, in := m.keys[n]
	switch c.Action {
	case Reset:
		m.unit = Nexus{}
		return Outcome{}
	case LoseNexus:
		if m.unit == n {
			m.unit = Nexus{}
		}
		return Outcome{}
	case ReserveUnit, ReleaseUnit:
		switch {
		case len(m.keys) > 0 && (m.holders[n] || in && m.typ >= 5):
		case len(m.keys) > 0:
			return conflict()
		case c.Action == ReleaseUnit && m.unit == n:
			m.unit = Nexus{}
		case c.Action == ReleaseUnit:
		case m.unit.IsZero():
			m.unit = n
		case m.unit != n:
			return conflict()
		}
		return Outcome{}
	}
	if !m.unit.IsZero() {
		return conflict()
	}
	switch c.Action {
	case Register, RegisterIgnore:
		return m.register(c)
	}
	if !in || c.Key != key {
		return conflict()
	}
	switch c.Action {
	case Reserve:
		switch {
		case c.Scope != 0 || !slices.Contains([]Type{1, 3, 5, 6, 7, 8}, c.Type):
			return illegal(invalidCDB)
		case m.typ == 0:
			m.take(c.Type, n)
		case !m.holders[n] || m.typ != c.Type:
			return conflict()
		}
	case Release:
		if m.typ == 0 || !m.holders[n] {
			return Outcome{}
		}
		if c.Scope != 0 || m.typ != c.Type {
			return illegal(invalidRelease)
		}
		if m.typ >= 5 {
			m.tell(n, ReservationsReleased)
		}
		m.typ, m.holders = 0, map[Nexus]bool{}
	case Clear:
		m.tell(n, ReservationsPreempted)
		m.keys, m.holders, m.typ = map[Nexus]uint64{}, map[Nexus]bool{}, 0
		m.gen++
	case Preempt, PreemptAndAbort:
		return m.preempt(c)
	case RegisterMove:
		switch {
		case m.typ == 0:
			return illegal(invalidCDB)
		case !m.holders[n] || m.typ >= 7:
			return conflict()
		case c.ServiceKey == 0 || c.To.Initiator == n.Initiator:
			return illegal(invalidParameter)
		}
		m.keys[c.To] = c.ServiceKey
		m.holders = map[Nexus]bool{c.To: true}
		if c.Unregister {
			delete(m.keys, n)
		}
		m.gen++
	}
	return Outcome{}
}

func (m *model) register(c Command) Outcome {
	key, in := m.keys[c.Nexus]
	switch {
	case c.Action == Register && key != c.Key:
		return conflict()
	case c.Specified && (c.Action == RegisterIgnore || in):
		return illegal(invalidParameter)
	}
	ports := map[uint16]bool{c.Nexus.Port: true}
	for _, p := range c.Ports {
		ports[p] = true
	}
	for _, o := range c.Others {
		for p := range ports {
			if c.ServiceKey != 0 && m.keys[Nexus{o, p}] != 0 {
				return illegal(invalidParameter)
			}
		}
	}
	did := false
	for _, p := range slices.Sorted(maps.Keys(ports)) {
		n := Nexus{c.Nexus.Initiator, p}
		old, known := m.keys[n]
		switch {
		case n != c.Nexus && c.Action == Register && old != c.Key:
			continue
		case !known && c.ServiceKey == 0:
			continue
		case c.ServiceKey == 0:
			m.drop(n, false)
		default:
			m.keys[n] = c.ServiceKey
		}
		did = true
	}
	for _, o := range c.Others {
		for p := range ports {
			if c.ServiceKey != 0 {
				m.keys[Nexus{o, p}] = c.ServiceKey
			}
		}
	}
	if did {
		m.gen++
	}
	return Outcome{}
}

func (m *model) preempt(c Command) Outcome {
	if c.ServiceKey == 0 && m.typ < 7 {
		return illegal(invalidParameter)
	}
	held := m.typ >= 7 && c.ServiceKey == 0
	if m.typ != 0 && m.typ < 7 {
		for h := range m.holders {
			held = m.keys[h] == c.ServiceKey
		}
	}
	if held && (c.Scope != 0 || !slices.Contains([]Type{1, 3, 5, 6, 7, 8}, c.Type)) {
		return illegal(invalidCDB)
	}
	var out []Nexus
	for n, k := range m.keys {
		if (k == c.ServiceKey || held && c.ServiceKey == 0) && !(held && n == c.Nexus) {
			out = append(out, n)
		}
	}
	if !held && len(out) == 0 {
		return conflict()
	}
	was := m.typ
	for _, n := range out {
		m.drop(n, true)
		if n != c.Nexus {
			m.ua[Notice{Nexus: n, Code: RegistrationsPreempted}] = true
		}
	}
	if held {
		if was != c.Type {
			m.tell(c.Nexus, ReservationsReleased)
		}
		m.take(c.Type, c.Nexus)
	}
	m.gen++
	return Outcome{}
}

// allows is SBC-3 table 13 spelled out.
func (m *model) allows(n Nexus, c Class) bool {
	if c == Free {
		return true
	}
	if !m.unit.IsZero() {
		return m.unit == n
	}
	_, registered := m.keys[n]
	switch m.typ {
	case 1:
		return c != Write || m.holders[n]
	case 3:
		return c == Info || m.holders[n]
	case 5, 7:
		return c != Write || registered
	case 6, 8:
		return c == Info || registered
	}
	return true
}

// compare finds a difference between the state and the model.
func (m *model) compare(s *State) string {
	keys, holders, ua := map[Nexus]uint64{}, map[Nexus]bool{}, map[Notice]bool{}
	for _, r := range s.Registered {
		keys[r.Nexus] = r.Key
		if s.Holds(r.Nexus) {
			holders[r.Nexus] = true
		}
	}
	for _, n := range s.Notices {
		n.Seq = 0
		ua[n] = true
	}
	type all struct {
		Keys    map[Nexus]uint64
		Holders map[Nexus]bool
		UA      map[Notice]bool
		Type    Type
		Unit    Nexus
		Gen     uint32
	}
	d := cmp.Diff(all{m.keys, m.holders, m.ua, m.typ, m.unit, m.gen}, all{keys, holders, ua, s.Type, s.Exclusive, s.Generation})
	if s.Type != 0 && len(holders) == 0 {
		d += "reserved, and held by nobody"
	}
	if !slices.IsSortedFunc(s.Registered, func(a, b Registration) int { return a.compare(b.Nexus) }) {
		d += "the registrations are in no order"
	}
	return d
}

var (
	names = []string{"iqn.a,i,0x000000000001", "iqn.b,i,0x000000000001", "iqn.b,i,0x000000000002"}
	ports = []uint16{1, 2, 0x8000}
)

func nexus(i int) Nexus { return Nexus{names[i%3], ports[i/3%3]} }

// command makes a command of six bytes.
func command(b [6]byte) Command {
	actions := []Action{Register, Reserve, Release, Clear, Preempt, PreemptAndAbort, RegisterIgnore, RegisterMove, ReserveUnit, ReleaseUnit,
		LoseNexus, Reset, Register, RegisterIgnore, Reserve, Preempt}
	c := Command{Nexus: nexus(int(b[0])), Action: actions[b[1]&15], Key: uint64(b[2] & 3), ServiceKey: uint64(b[2] >> 2 & 3),
		Type: Type(b[3] & 15), Scope: b[3] >> 7 & (b[3] >> 6) & (b[3] >> 5), To: nexus(int(b[4])), Unregister: b[5]&1 != 0}
	if b[5]&2 != 0 {
		c.Ports = ports
	}
	if b[5]&0x0c == 0x0c {
		c.Specified, c.Others = true, names[b[4]&1:]
	}
	return c
}

// play runs commands on both, and compares after each.
func play(t *testing.T, b []byte) {
	t.Helper()
	var s State
	m := newModel()
	script := ""
	for ; len(b) >= 6; b = b[6:] {
		c := command([6]byte(b))
		before, frozen := s, fmt.Sprint(s)
		next, got := Apply(s, c)
		want := m.do(c)
		script += fmt.Sprintf("%+v: %+v\n", c, got)
		if got != want {
			t.Fatalf("%swant %+v", script, want)
		}
		if d := m.compare(&next); d != "" {
			t.Fatalf("%s%s", script, d)
		}
		if fmt.Sprint(before) != frozen {
			t.Fatalf("%sa state has changed in place", script)
		}
		if !got.Good() && next.Seq != s.Seq {
			t.Fatalf("%sa refusal counts as a change", script)
		}
		for i := range 9 {
			for class := Free; class <= Write; class++ {
				if n := nexus(i); next.Allows(n, class) != m.allows(n, class) {
					t.Fatalf("%s%v, class %d: allowed %v", script, n, class, next.Allows(n, class))
				}
			}
		}
		s = next
	}
}

// TestModel: random commands do what the naive model does.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		b := make([]byte, 6*40)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		play(t, b)
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 0, 4, 0, 0, 0, 0, 1, 1, 5, 0, 0, 1, 0, 8, 0, 0, 0, 1, 4, 6, 5, 0, 0})
	f.Add([]byte{0, 6, 4, 0, 0, 2, 0, 1, 1, 7, 0, 0, 3, 2, 1, 7, 0, 0, 0, 7, 9, 0, 4, 1})
	f.Fuzz(func(t *testing.T, b []byte) { play(t, b[:min(len(b), 600)]) })
}
