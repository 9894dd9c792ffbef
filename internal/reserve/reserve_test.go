package reserve

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pmsapp/internal/iscsi"
)

// TestGolden: what SPC-4 says, line by line. a, b, c are nexuses; what follows an arrow is the outcome, and after a semicolon who
// is registered (an asterisk: holds), the type, and who has notices.
func TestGolden(t *testing.T) {
	for _, script := range []string{`
		a register 0 0 -> good;
		a register 5 1 -> conflict;
		a register 0 1 -> good; a=1
		a register 0 2 -> conflict; a=1
		a register 1 2 -> good; a=2
		b ignore 9 7 -> good; a=2 b=7
		b reserve 9 0 t5 -> conflict; a=2 b=7
		c reserve 0 0 t5 -> conflict; a=2 b=7
		a reserve 2 0 t5 -> good; *a=2 b=7 t5
		a reserve 2 0 t5 -> good; *a=2 b=7 t5
		a reserve 2 0 t1 -> conflict; *a=2 b=7 t5
		b reserve 7 0 t5 -> conflict; *a=2 b=7 t5
		b release 7 0 t5 -> good; *a=2 b=7 t5
		a release 2 0 t1 -> 2604; *a=2 b=7 t5
		a release 2 0 t5 -> good; a=2 b=7 b!2a04
		a reserve 2 0 t4 -> 2400; a=2 b=7 b!2a04`, `
		a register 0 1 -> good; a=1
		b register 0 2 -> good; a=1 b=2
		c register 0 2 -> good; a=1 b=2 c=2
		b reserve 2 0 t1 -> good; a=1 *b=2 c=2 t1
		a preempt 1 0 t3 -> 2600; a=1 *b=2 c=2 t1
		a preempt 1 9 t3 -> conflict; a=1 *b=2 c=2 t1
		a preempt 1 2 t3 -> good; *a=1 t3 b!2a05 c!2a05`, `
		a register 0 1 -> good; a=1
		b register 0 2 -> good; a=1 b=2
		c register 0 3 -> good; a=1 b=2 c=3
		a reserve 1 0 t6 -> good; *a=1 b=2 c=3 t6
		b preempt 2 3 t5 -> good; *a=1 b=2 t6 c!2a05
		b abort 2 1 t5 -> good; *b=2 t5 c!2a05 a!2a05
		b clear 2 0 -> good; c!2a05 a!2a05`, `
		a register 0 1 -> good; a=1
		b register 0 2 -> good; a=1 b=2
		c register 0 3 -> good; a=1 b=2 c=3
		a reserve 1 0 t7 -> good; *a=1 *b=2 *c=3 t7
		a register 1 0 -> good; *b=2 *c=3 t7
		b preempt 2 0 t8 -> good; *b=2 t8 c!2a05
		b register 2 0 -> good; c!2a05`, `
		a register 0 1 -> good; a=1
		b register 0 2 -> good; a=1 b=2
		c register 0 3 -> good; a=1 b=2 c=3
		a reserve 1 0 t5 -> good; *a=1 b=2 c=3 t5
		a register 1 0 -> good; b=2 c=3 b!2a04 c!2a04
		b clear 2 0 -> good; b!2a04 c!2a04 c!2a03`, `
		a unit 0 0 -> good; a+
		b unit 0 0 -> conflict; a+
		b free 0 0 -> good; a+
		b register 0 1 -> conflict; a+
		a register 0 1 -> conflict; a+
		b lose 0 0 -> good; a+
		a lose 0 0 -> good;
		a unit 0 0 -> good; a+
		b reset 0 0 -> good;
		a register 0 1 -> good; a=1
		a unit 0 0 -> conflict; a=1
		a reserve 1 0 t5 -> good; *a=1 t5
		a unit 0 0 -> good; *a=1 t5
		a free 0 0 -> good; *a=1 t5
		b unit 0 0 -> conflict; *a=1 t5
		b free 0 0 -> conflict; *a=1 t5`,
	} {
		var s State
		for line := range strings.Lines(strings.TrimSpace(script)) {
			line = strings.TrimSpace(line)
			do, want, _ := strings.Cut(line, " -> ")
			f := strings.Fields(do)
			c := Command{Nexus: Nexus{Initiator: f[0], Port: 1}, Action: map[string]Action{"register": Register, "ignore": RegisterIgnore, "reserve": Reserve,
				"release": Release, "clear": Clear, "preempt": Preempt, "abort": PreemptAndAbort, "unit": ReserveUnit, "free": ReleaseUnit,
				"lose": LoseNexus, "reset": Reset}[f[1]]}
			fmt.Sscan(f[2], &c.Key)
			fmt.Sscan(f[3], &c.ServiceKey)
			if len(f) > 4 {
				fmt.Sscanf(f[4], "t%d", &c.Type)
			}
			next, o := Apply(s, c)
			s = next
			if got := tell(o, &s); got != want {
				t.Fatalf("%s\ngot %s", line, got)
			}
		}
	}
}

// TestOthersRegistered: SPEC_I_PT registers those who are not registered, and REGISTER AND MOVE moves what there is to another
// initiator port (SPC-4 tables 67 and 68, 5.13.8, 6.16.3).
func TestOthersRegistered(t *testing.T) {
	a, b := Nexus{"a", 1}, Nexus{"b", 1}
	var s State
	for i, c := range []struct {
		Command
		want string
	}{
		{Command{Nexus: a, Specified: true, Others: []string{"b"}}, "good;"},
		{Command{Nexus: a, Key: 1, ServiceKey: 1, Specified: true, Others: []string{"b"}}, "conflict;"},
		{Command{Nexus: b, ServiceKey: 2}, "good; b=2"},
		{Command{Nexus: a, ServiceKey: 1, Specified: true, Others: []string{"c", "b"}}, "2600; b=2"},
		{Command{Nexus: a, ServiceKey: 1, Specified: true, Others: []string{"c"}}, "good; a=1 b=2 c=1"},
		{Command{Nexus: a, Key: 1, ServiceKey: 3, Specified: true, Others: []string{"d"}}, "2600; a=1 b=2 c=1"},
		{Command{Nexus: a, Key: 1, Specified: true, Others: []string{"d"}}, "2600; a=1 b=2 c=1"},
		{Command{Nexus: a, Action: RegisterMove, Key: 1, ServiceKey: 9, To: Nexus{"e", 1}}, "2400; a=1 b=2 c=1"},
		{Command{Nexus: a, Action: Reserve, Key: 1, Type: 5}, "good; *a=1 b=2 c=1 t5"},
		{Command{Nexus: b, Action: RegisterMove, Key: 2, ServiceKey: 9, To: Nexus{"e", 1}}, "conflict; *a=1 b=2 c=1 t5"},
		{Command{Nexus: a, Action: RegisterMove, Key: 1, ServiceKey: 9, To: Nexus{"a", 2}}, "2600; *a=1 b=2 c=1 t5"},
		{Command{Nexus: a, Action: RegisterMove, Key: 1, ServiceKey: 9, To: b, Unregister: true}, "good; *b=9 c=1 t5"},
	} {
		next, o := Apply(s, c.Command)
		s = next
		if got := tell(o, &s); got != c.want {
			t.Errorf("%d: got %s, want %s", i, got, c.want)
		}
	}
}

func tell(o Outcome, s *State) string {
	out := "good;"
	switch {
	case o.Conflict:
		out = "conflict;"
	case o.ASC != 0:
		out = fmt.Sprintf("%04x;", o.ASC)
	}
	for _, r := range s.Registered {
		star := ""
		if s.Holds(r.Nexus) {
			star = "*"
		}
		out += fmt.Sprintf(" %s%s=%d", star, r.Initiator, r.Key)
	}
	if s.Type != 0 {
		out += fmt.Sprintf(" t%d", s.Type)
	}
	if !s.Exclusive.IsZero() {
		out += " " + s.Exclusive.Initiator + "+"
	}
	for _, n := range s.Notices {
		out += fmt.Sprintf(" %s!%04x", n.Initiator, n.Code)
	}
	return out
}

func TestLimits(t *testing.T) {
	var s State
	for i := range MaxRegistrations + 1 {
		next, o := Apply(s, Command{Nexus: Nexus{fmt.Sprintf("i%04d", i), 1}, ServiceKey: 1})
		if full := i == MaxRegistrations; full != (o == Outcome{ASC: noResources}) {
			t.Fatal(i, o)
		}
		s = next
	}
	for round := range 3 {
		for i := range MaxRegistrations {
			s.notify(Nexus{fmt.Sprintf("i%04d", i), uint16(round)}, ReservationsReleased)
		}
	}
	if len(s.Notices) != MaxNotices || s.Notices[0].Port != 1 {
		t.Fatal(len(s.Notices), s.Notices[0])
	}
	before := len(s.Notices)
	s, _ = Apply(s, Command{Nexus: s.Notices[7].Nexus, Action: Told, Code: ReservationsReleased, Through: s.Seq})
	if len(s.Notices) != before-1 {
		t.Fatal("a notice that was told of is there still")
	}
}

func out(action, scopeType byte, key, service uint64, flags byte, more ...byte) (cdb, list []byte) {
	list = binary.BigEndian.AppendUint64(nil, key)
	list = binary.BigEndian.AppendUint64(list, service)
	list = append(append(list, 0, 0, 0, 0, flags, 0, 0, 0), more...)
	cdb = []byte{0x5f, action, scopeType, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(cdb[5:], uint32(len(list)))
	return cdb, list
}

func TestParse(t *testing.T) {
	n := Nexus{PortName("iqn.A", iscsi.ISID{0x80, 0, 0, 0, 0, 1}), 1}
	if n.Initiator != "iqn.a,i,0x800000000001" {
		t.Fatal(n)
	}
	id := transportID("iqn.b,i,0x800000000002")
	all := []uint16{1, 2}
	cdb, list := out(0, 0, 0, 7, 0x0d, append([]byte{0, 0, 0, byte(len(id))}, id...)...)
	c, err := ParseOut(n, all, cdb, list)
	if err != nil || len(c.Others) != 1 || c.Others[0] != "iqn.b,i,0x800000000002" || len(c.Ports) != 2 || c.ServiceKey != 7 {
		t.Fatal(c, err)
	}
	cdb, list = out(7, 0, 1, 7, 0, id...)
	list[17], list[19], list[23] = 2, 2, byte(len(id))
	if c, err = ParseOut(n, all, cdb, list); err != nil || !c.Unregister || c.To != (Nexus{"iqn.b,i,0x800000000002", 2}) {
		t.Fatal(c, err)
	}
	list[19] = 3
	wrong := func(what string, asc uint16, cdb, list []byte) {
		t.Helper()
		var e *Error
		if _, err := ParseOut(n, all, cdb, list); !errors.As(err, &e) || e.ASC != asc {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong("a port that is none", invalidParameter, cdb, list)
	cdb, list = out(8, 0, 0, 0, 0)
	wrong("an action that is none", invalidCDB, cdb, list)
	cdb, list = out(1, 0, 0, 0, 0)
	wrong("a short list", parameterListLength, cdb, list[:20])
	cdb, list = out(0, 0, 0, 1, 0, 0, 0, 0, 0)
	wrong("a long list", parameterListLength, cdb, list)
	cdb, list = out(0, 0, 0, 1, 8, 0, 0, 0, 4, 0, 0, 0, 0)
	wrong("no TransportID", invalidParameter, cdb, list)
	cdb, list = out(1, 0, 0, 1, 8, append([]byte{0, 0, 0, byte(len(id))}, id...)...)
	wrong("SPEC_I_PT with RESERVE", invalidParameter, cdb, list)
	cdb, list = out(6, 0, 0, 1, 8, append([]byte{0, 0, 0, byte(len(id))}, id...)...)
	wrong("SPEC_I_PT with REGISTER AND IGNORE EXISTING KEY", invalidParameter, cdb, list)
	id[0] = 0x05
	cdb, list = out(0, 0, 0, 1, 8, append([]byte{0, 0, 0, byte(len(id))}, id...)...)
	wrong("a device", invalidParameter, cdb, list)
}

func TestIn(t *testing.T) {
	var s State
	a, b := Nexus{"iqn.a,i,0x000000000001", 1}, Nexus{"iqn.b,i,0x000000000001", 2}
	for _, c := range []Command{{Nexus: a, ServiceKey: 0x11}, {Nexus: b, ServiceKey: 0x22}, {Nexus: b, Action: Reserve, Key: 0x22, Type: 5}} {
		s, _ = Apply(s, c)
	}
	for sa, want := range map[byte]string{
		0: "0000000200000010" + "0000000000000011" + "0000000000000022",
		1: "0000000200000010" + "0000000000000022" + "0000000000050000",
		2: "00081d91ea010000",
		3: "0000000200000068" +
			"0000000000000011" + "00000000" + "0000" + "00000000" + "0001" + "0000001c" + "45000018" + hex.EncodeToString([]byte(a.Initiator)) + "0000" +
			"0000000000000022" + "00000000" + "0105" + "00000000" + "0002" + "0000001c" + "45000018" + hex.EncodeToString([]byte(b.Initiator)) + "0000",
	} {
		got, err := s.In([]byte{0x5e, sa})
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("service action %d: %v\n%x\n%s", sa, err, got, want)
		}
	}
	if _, err := s.In([]byte{0x5e, 4}); err == nil {
		t.Error("service action 4")
	}
	if got, _ := (&State{}).In([]byte{0x5e, 1}); !bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("%x", got)
	}
}

func FuzzParseOut(f *testing.F) {
	id := transportID("iqn.b,i,0x800000000002")
	cdb, list := out(0, 0, 0, 7, 0x0d, append([]byte{0, 0, 0, byte(len(id))}, id...)...)
	f.Add(cdb, list)
	cdb, list = out(7, 0, 1, 7, 0, id...)
	list[23] = byte(len(id))
	f.Add(cdb, list)
	f.Fuzz(func(t *testing.T, cdb, list []byte) {
		if len(cdb) < 10 {
			return
		}
		c, err := ParseOut(Nexus{"x", 1}, []uint16{1, 2}, cdb, list)
		if err != nil {
			return
		}
		s, _ := Apply(State{}, c)
		if len(s.Registered) > MaxRegistrations {
			t.Fatal(len(s.Registered))
		}
		for _, r := range s.Registered {
			if len(r.Initiator) > MaxName || r.Key == 0 {
				t.Fatalf("%+v", r)
			}
		}
		for sa := range byte(4) {
			if _, err := s.In([]byte{0x5e, sa}); err != nil {
				t.Fatal(err)
			}
		}
		if c.Nexus.Port != 1 {
			t.Fatal("another nexus")
		}
	})
}
