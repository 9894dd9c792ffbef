package mirror

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

var update = flag.Bool("update", false, "write the golden scripts anew")

// TestGolden runs the scripts in testdata. A script is blocks of commands, "----", and the effects that they have.
// Nodes are letters, calls c1, c2 ... in the order in which they are sent, requests have the names that they are given.
//
//	open self=A members=A,B [version=1] [hold=30s] [cool=5s] [size=1m] [window=64k] [copies=4] [memory=yes] [volatile=A,B]
//	write|read|zero|flush|update|map NAME [OFF LEN] [fua]     off and len in bytes, with k or m
//	ok CALL... [data=N] [active=REGION@SEQ,...] [extents=OFF+LEN,...] [inc=N]
//	   of readmap: [birth=N] [high=SEQ] [known=NODE@EPOCH/SEQ,... or NODE, if present]; replicas on record have the birth 1
//	err CALL... lost|medium|full|epoch|noreplica
//	lost|back|unreachable NODE [seq=N] [inc=N]           incarnations are 1, if not named
//	decided ok|unknown|epoch|version|last|notreplica [set=A,B] [version=N]
//	retire NODE SET
//	memory yes|no
//	tick DURATION | resync NODE [empty] | stop NODE | granted [scrub] | scrub [stop] | drain | close | status
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			in, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out := newScript(t).run(string(in))
			if *update {
				if err := os.WriteFile(f, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(strings.Split(string(in), "\n"), strings.Split(out, "\n")); d != "" {
				t.Fatal(d)
			}
		})
	}
}

type script struct {
	t      *testing.T
	core   *Core
	calls  map[string]*peer.Call
	names  map[*peer.Call]string
	sent   int
	memory bool
	reqs   map[*block.Request]string
	prop   uint64
	now    time.Duration
	out    strings.Builder
}

func newScript(t *testing.T) *script {
	return &script{t: t, calls: map[string]*peer.Call{}, names: map[*peer.Call]string{}, reqs: map[*block.Request]string{}}
}

func (s *script) run(in string) string {
	var out strings.Builder
	expected := false
	for line := range strings.Lines(in) {
		line = strings.TrimRight(line, "\n")
		switch {
		case expected:
			if line == "" {
				expected = false
				out.WriteString("\n")
			}
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		case line == "----":
			out.WriteString("----\n" + s.out.String())
			s.out.Reset()
			expected = true
		default:
			out.WriteString(line + "\n")
			s.command(strings.Fields(line))
		}
	}
	return out.String()
}

func letter(n ids.Node) string     { return string(rune('A' + n[0] - 1)) }
func fromLetter(s string) ids.Node { return ids.Node{s[0] - 'A' + 1} }

func places(s string) (set []truth.Place) {
	for l := range strings.SplitSeq(s, ",") {
		if l != "" {
			set = append(set, truth.Place{Node: fromLetter(l), Pool: ids.Pool(fromLetter(l))})
		}
	}
	return set
}

func (s *script) bytes(v string) int64 {
	unit := int64(1)
	if n := strings.TrimSuffix(v, "k"); n != v {
		v, unit = n, 1<<10
	} else if n := strings.TrimSuffix(v, "m"); n != v {
		v, unit = n, 1<<20
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n * unit
}

func (s *script) command(f []string) {
	args := map[string]string{}
	var words []string
	for _, w := range f[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			args[k] = v
		} else {
			words = append(words, w)
		}
	}
	number := func(k string) uint64 {
		n, _ := strconv.ParseUint(args[k], 10, 64)
		return n
	}
	switch f[0] {
	case "open":
		s.open(args)
	case "write", "read", "zero", "flush", "update", "map":
		s.submit(f[0], words)
	case "ok":
		for _, w := range words {
			s.answer(w, nil, args)
		}
	case "err":
		why := map[string]error{"lost": peer.ErrLost, "medium": peer.ErrMedium, "full": peer.ErrNoSpace,
			"epoch": &peer.EpochError{Accepted: 9}, "noreplica": peer.ErrNoReplica}[words[len(words)-1]]
		for _, w := range words[:len(words)-1] {
			s.answer(w, why, args)
		}
	case "lost":
		s.core.Lost(fromLetter(words[0]))
	case "back":
		s.core.Back(fromLetter(words[0]), peer.Seq(number("seq")), s.incarnation(args))
	case "unreachable":
		s.core.Unreachable(fromLetter(words[0]), errors.New("connection refused"))
	case "decided":
		s.decided(words[0], number("version"), places(args["set"]))
	case "tick":
		d, err := time.ParseDuration(words[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now += d
		s.core.Tick(s.now)
	case "resync":
		if err := s.core.StartResync(Joiner{Place: places(words[0])[0], Empty: len(words) > 1}); err != nil {
			fmt.Fprintln(&s.out, err)
		}
	case "stop":
		s.core.StopResync(fromLetter(words[0]))
	case "retire": // retire A A,B: while the set is A and B
		var set []ids.Node
		for _, p := range places(words[1]) {
			set = append(set, p.Node)
		}
		s.core.Retire(fromLetter(words[0]), set)
	case "scrub":
		if len(words) > 0 {
			s.core.StopScrub()
		} else if err := s.core.StartScrub(ScrubOrder{Rate: 1 << 20}); err != nil {
			fmt.Fprintln(&s.out, err)
		}
	case "granted":
		s.core.Granted(map[bool]Asker{true: ForScrub}[len(words) > 0])
	case "memory":
		s.core.SetMemory(words[0] == "yes")
	case "drain":
		s.core.Drain()
	case "close":
		s.core.Close(nil)
	case "status":
		st := s.core.Status()
		fmt.Fprintf(&s.out, "version %d requests %d active %d dirty %d idle %v", st.Version, st.Requests, st.Active, st.Dirty, s.core.Idle())
		for _, m := range st.Members {
			fmt.Fprintf(&s.out, " %s(reached %v failed %v)", letter(m.Node), m.Reached, m.Failed)
		}
		fmt.Fprintf(&s.out, " hold: %q\n", st.HoldCause)
	default:
		s.t.Fatalf("unknown command %q", f[0])
	}
	if s.core != nil {
		for _, e := range s.core.Effects(nil) {
			s.effect(e)
		}
	}
}

func (s *script) open(args map[string]string) {
	set := places(args["members"])
	p := Params{Epoch: 5, Self: fromLetter(args["self"]), Volume: truth.Volume{
		ID: ids.Volume{1}, Size: 1 << 20, Region: 64 << 10, Logical: 512, Version: 1, InSync: set, Replicas: places("A,B,C"),
	}}
	p.Tunables.Chunk, p.Tunables.Cool, p.Tunables.Resyncers = 32<<10, 5*time.Second, 2
	s.memory = args["memory"] != ""
	p.Volume.Memory = s.memory
	for _, pl := range places(args["volatile"]) {
		p.Volume.Volatile = append(p.Volume.Volatile, truth.Volatile{Pool: pl.Pool, Incarnation: s.incarnation(nil)})
	}
	if v := args["hold"]; v != "" {
		p.Tunables.Hold, _ = time.ParseDuration(v)
	}
	if v := args["hot"]; v != "" {
		p.Tunables.HotRegions, _ = strconv.Atoi(v)
	}
	if v := args["window"]; v != "" { // and what is half as long has its space reserved
		p.Tunables.Window = s.bytes(v)
		p.Tunables.Reserve = p.Tunables.Window / 2
	}
	if v := args["copies"]; v != "" {
		p.Tunables.Resyncers, _ = strconv.Atoi(v)
	}
	p.Tunables.Budgeted = args["budget"] != ""
	for _, m := range set {
		p.Members = append(p.Members, Member{Node: m.Node, Seq: 10, Durable: 9, Incarnation: s.incarnation(nil)})
	}
	var err error
	if s.core, err = New(p); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) submit(op string, w []string) {
	r := &block.Request{Op: map[string]block.Op{"write": block.Write, "read": block.Read, "zero": block.Zero, "flush": block.Flush,
		"update": block.Update, "map": block.Map}[op]}
	if r.FUA = w[len(w)-1] == "fua"; r.FUA {
		w = w[:len(w)-1]
	}
	if len(w) > 1 {
		r.Off, r.Len = s.bytes(w[1]), s.bytes(w[2])
	}
	if r.Op == block.Read || r.Op == block.Write {
		r.Data = make([]byte, r.Len)
		for i := range r.Data {
			r.Data[i] = w[0][len(w[0])-1]
		}
	}
	if r.Op == block.Update { // it changes what is not 9
		r.Data, r.Modify = make([]byte, r.Len), func(r *block.Request) error {
			fmt.Fprintf(&s.out, "%s finds %d\n", w[0], r.Data[0])
			if r.Data[0] == 9 {
				return errRefused
			}
			return nil
		}
	}
	s.reqs[r] = w[0]
	s.core.Submit(r)
}

func (s *script) answer(name string, err error, args map[string]string) {
	c := s.calls[name]
	if c == nil {
		fmt.Fprintf(&s.out, "no call %s\n", name)
		return
	}
	delete(s.calls, name)
	c.Answer = peer.Answer{Err: err}
	if c.Kind == peer.ReadMap && err == nil {
		c.Incarnation = s.incarnation(args)
	}
	if c.Kind == peer.Read && err == nil {
		v, _ := strconv.Atoi(args["data"])
		for i := range c.Data {
			c.Data[i] = byte(v)
		}
	}
	if v := args["active"]; v != "" {
		for e := range strings.SplitSeq(v, ",") {
			r, q, _ := strings.Cut(e, "@")
			ri, _ := strconv.ParseUint(r, 10, 32)
			qi, _ := strconv.ParseUint(q, 10, 64)
			c.Active = append(c.Active, peer.RegionSeq{Region: uint32(ri), Seq: peer.Seq(qi)})
		}
	}
	if v := args["extents"]; v != "" {
		for e := range strings.SplitSeq(v, ",") {
			o, n, _ := strings.Cut(e, "+")
			c.Extents = append(c.Extents, peer.Extent{Off: s.bytes(o), Len: s.bytes(n)})
		}
	}
	if v := args["birth"]; v != "" {
		n, _ := strconv.Atoi(v)
		c.Birth = ids.ID{byte(n)}
	}
	high, _ := strconv.ParseUint(args["high"], 10, 64)
	c.Highest = peer.Seq(high)
	if v := args["known"]; v != "" {
		for e := range strings.SplitSeq(v, ",") {
			var o peer.Other
			var l string
			l, v, o.Absent = strings.Cut(e, "@")
			fmt.Sscanf(v, "%d/%d", &o.Epoch, &o.Seq)
			o.ID = peer.ReplicaID{Node: fromLetter(l), Pool: ids.Pool(fromLetter(l)), Birth: ids.ID{1}}
			c.Known = append(c.Known, o)
		}
	}
	s.core.Answered(c)
}

func describeOthers(list []peer.Other) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, " %s birth %d", letter(o.ID.Node), o.ID.Birth[0])
		switch {
		case o.All:
			b.WriteString(" misses all")
		case o.Absent:
			fmt.Fprintf(&b, " absent %d/%d", o.Epoch, o.Seq)
		}
	}
	return b.String()
}

// incarnation is that of a replica: none in scripts that are not about it.
func (s *script) incarnation(args map[string]string) ids.ID {
	n := byte(1)
	if v := args["inc"]; v != "" {
		n = v[0] - '0'
	}
	if !s.memory {
		n = 0
	}
	return ids.ID{n}
}

func (s *script) decided(how string, version uint64, set []truth.Place) {
	out, err := truth.Outcome{}, error(nil)
	cur := truth.Volume{ID: ids.Volume{1}, Version: version, InSync: set}
	why := map[string]truth.Why{"epoch": truth.WrongEpoch, "version": truth.WrongVersion, "last": truth.LastMember, "notreplica": truth.NotAReplica}
	switch how {
	case "ok":
		out = truth.Outcome{Version: version, InSync: set}
	case "unknown":
		err = truth.ErrUnknown
	default:
		err = &truth.Rejection{Why: why[how], Current: cur}
	}
	s.core.Decided(s.prop, out, err)
}

var kinds = map[peer.Kind]string{peer.Read: "read", peer.Write: "write", peer.Zero: "zero", peer.Confirm: "confirm",
	peer.Clear: "clear", peer.ReadMap: "readmap", peer.Extents: "extents", peer.Sums: "sums",
	peer.Know: "know", peer.ReadMissed: "readmissed", peer.AddMissed: "addmissed", peer.DropMissed: "dropmissed", peer.Flush: "flush",
	peer.Reserve: "reserve"}

func (s *script) effect(e Effect) {
	w := &s.out
	switch e.Kind {
	case Send:
		s.sent++
		name := fmt.Sprintf("c%d", s.sent)
		s.calls[name] = e.Call
		fmt.Fprintf(w, "%s: %s %s", name, letter(e.Node), kinds[e.Call.Kind])
		c := e.Call
		switch c.Kind {
		case peer.Read, peer.Write, peer.Zero, peer.Extents, peer.Sums, peer.Reserve:
			fmt.Fprintf(w, " %dk+%dk", c.Off>>10, c.Len>>10)
		case peer.Clear:
			fmt.Fprintf(w, " %v durable %d", c.Regions, c.Durable)
		case peer.Know, peer.ReadMissed, peer.AddMissed, peer.DropMissed:
			fmt.Fprintf(w, "%s", describeOthers(c.Others))
			for _, x := range c.Missed {
				fmt.Fprintf(w, " %dk+%dk", x.Off>>10, x.Len>>10)
			}
		}
		if c.Seq != 0 {
			fmt.Fprintf(w, " seq %d durable %d", c.Seq, c.Durable)
		}
		if c.Volatile {
			fmt.Fprint(w, " volatile")
		}
		fmt.Fprintln(w)
	case Complete:
		fmt.Fprintf(w, "%s is done: %v\n", s.reqs[e.Request], e.Request.Err)
		if e.Request.Op == block.Map && e.Request.Err == nil {
			fmt.Fprintf(w, "%v\n", e.Request.Extents)
		}
	case Propose:
		s.prop = e.ID
		switch p := e.Proposal.(type) {
		case truth.RemoveMember:
			fmt.Fprintf(w, "propose: remove %s at version %d\n", letter(p.Node), p.Version)
		case truth.SetVolatile:
			fmt.Fprint(w, "propose: volatile are")
			for _, x := range p.Members {
				fmt.Fprintf(w, " %s under %d", letter(ids.Node(x.Pool)), x.Incarnation[0])
			}
			fmt.Fprintln(w)
		case truth.AddMember:
			fmt.Fprintf(w, "propose: add %s at version %d\n", letter(p.Node), p.Version)
		}
	case Reconnect:
		fmt.Fprintf(w, "reconnect %s\n", letter(e.Node))
	case Report:
		fmt.Fprintf(w, "notice: %v", e.Notice.Code)
		if !e.Node.IsZero() {
			fmt.Fprintf(w, " %s", letter(e.Node))
		}
		if n := e.Notice; n.Code == Mended || n.Code == MendFailed || n.Code == Unreadable {
			fmt.Fprintf(w, " %dk+%dk", n.Off>>10, n.Len>>10)
			for _, x := range n.Nodes {
				fmt.Fprintf(w, " %s", letter(x))
			}
		}
		if e.Notice.Err != nil {
			fmt.Fprintf(w, ": %v", e.Notice.Err)
		}
		fmt.Fprintln(w)
	case Drained:
		fmt.Fprintln(w, "drained")
	case Ended:
		fmt.Fprintf(w, "ended: %v\n", e.Err)
	case ResyncDone:
		fmt.Fprintf(w, "resync of %s is over: %v\n", letter(e.Node), e.Err)
	case Ask:
		fmt.Fprintf(w, "ask for %d bytes\n", e.Bytes)
	}
}
