package reign

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

var update = flag.Bool("update", false, "rewrite the golden scripts")

// TestGolden runs the scripts in testdata: each line that begins in the first column is a command, and the indented lines
// after it are the effects that it had. `go test -run Golden -update` rewrites them; read the difference.
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
			got := runScript(t, string(in))
			if *update {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(in), "\n"), strings.Split(got, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

// script drives one Core by hand.
type script struct {
	t                                *testing.T
	w                                *world
	c                                *Core
	now                              time.Duration
	out                              strings.Builder
	props, opens, polls, cmds, votes []Effect            // not answered
	live                             map[ids.Node]uint64 // open sessions
	req                              uint64
	copies                           bool // BeginCopy is shown, and committed when the script says so
}

func runScript(t *testing.T, in string) string {
	s := &script{t: t, w: newWorld(), live: make(map[ids.Node]uint64)}
	for line := range strings.Lines(in) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, " ") {
			continue
		}
		s.out.WriteString(line + "\n")
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(line, "#") {
			s.do(f[0], f[1:])
		}
	}
	return s.out.String()
}

func (s *script) step(ev Event) { s.take(s.c.Step(s.now, ev)) }

func (s *script) take(es []Effect) {
	for _, e := range es {
		if p, ok := e.(Propose); ok && !s.copies {
			if b, ok := p.P.(truth.BeginCopy); ok { // committed at once, and not shown
				out, err := s.w.apply(b)
				defer s.step(Decided{ID: p.ID, Outcome: out, Err: err, View: s.w.view})
				continue
			}
		}
		s.out.WriteString("    " + show(e) + "\n")
		switch e := e.(type) {
		case Propose:
			s.props = append(s.props, e)
		case ProposeCreate, ProposeDelete:
			s.votes = append(s.votes, e)
		case OpenSession:
			s.opens = append(s.opens, e)
		case CloseSession:
			delete(s.live, e.Node)
			s.opens = slices.DeleteFunc(s.opens, func(o Effect) bool { return o.(OpenSession).Attempt == e.Attempt })
		case Poll:
			s.polls = append(s.polls, e)
		case Command:
			s.cmds = append(s.cmds, e)
		}
	}
}

// next takes the oldest effect that waits.
func next(s *script, q *[]Effect) Effect {
	if len(*q) == 0 {
		s.t.Fatalf("nothing waits; so far:\n%s", s.out.String())
	}
	e := (*q)[0]
	*q = (*q)[1:]
	return e
}

func (s *script) opening(n string) OpenSession {
	for i, e := range s.opens {
		if o := e.(OpenSession); o.Node == nodeID(n) {
			s.opens = slices.Delete(s.opens, i, i+1)
			return o
		}
	}
	s.t.Fatalf("no session to %s is being opened; so far:\n%s", n, s.out.String())
	return OpenSession{}
}

func (s *script) do(cmd string, a []string) {
	num := func(i int) int {
		n, err := strconv.Atoi(a[i])
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	switch cmd {
	case "node":
		s.w.addNode(a[0], false, a[1:]...)
	case "witness":
		s.w.addNode(a[0], true)
	case "volume":
		s.w.addVolume(a[0], a[1:]...)
	case "core":
		s.c = NewCore(Default(), nodeID(a[0]))
	case "served": // served v 5: as the catalog has it from former reigns; its pools have accepted that
		tv := find(s.w.view, volumeID(a[0]))
		tv.LastServed = peer.Epoch(num(1))
		s.w.view.Epoch = max(s.w.view.Epoch, tv.LastServed)
		for _, p := range tv.Replicas {
			s.w.pool(p).accepted = peer.Accept(s.w.pool(p).accepted, tv.LastServed)
			s.w.nodes[p.Node].accepted = max(s.w.nodes[p.Node].accepted, tv.LastServed)
		}
	case "accepted": // accepted a.1 3-4 6
		p := s.w.pool(place(a[0]))
		p.accepted = nil
		for _, r := range a[1:] {
			lo, hi, ok := strings.Cut(r, "-")
			if !ok {
				hi = lo
			}
			l, _ := strconv.Atoi(lo)
			h, _ := strconv.Atoi(hi)
			p.accepted = append(p.accepted, peer.EpochRange{Lo: peer.Epoch(l), Hi: peer.Epoch(h)})
		}
	case "highest":
		s.w.nodes[nodeID(a[0])].accepted = peer.Epoch(num(1))
	case "replica": // replica v a.1 seq durable
		r := s.w.pool(place(a[1])).replica(volumeID(a[0]))
		r.Seq, r.Durable = peer.Seq(num(2)), peer.Seq(num(3))
	case "memory": // memory v yes|no
		s.w.view = s.w.change()
		tv := find(s.w.view, volumeID(a[0]))
		tv.Memory = a[1] == "yes"
	case "volatile": // volatile v a.1 b.1: they acknowledge from memory, under the incarnations that they have
		s.w.view = s.w.change()
		tv := find(s.w.view, volumeID(a[0]))
		tv.Volatile = nil
		for _, p := range a[1:] {
			r := s.w.pool(place(p)).replica(tv.ID)
			tv.Volatile = append(tv.Volatile, truth.Volatile{Pool: poolID(p), Incarnation: r.Incarnation})
		}
	case "restarted": // restarted v a.1 N
		s.w.pool(place(a[1])).replica(volumeID(a[0])).Incarnation = ids.ID{byte(num(2))}
	case "unflushed": // the mirror ends: its last member could not flush
		s.step(MirrorEnded{Volume: volumeID(a[0]), Epoch: s.w.view.Epoch, Err: mirror.ErrFlush})
	case "foreign":
		s.w.pool(place(a[1])).replica(volumeID(a[0])).Foreign = true
	case "stray":
		p := place(a[1])
		s.w.pool(p).put(peer.Spec{Volume: volumeID(a[0]), Pool: p.Pool})
	case "missing":
		s.w.pool(place(a[1])).remove(volumeID(a[0]))
	case "found":
		s.w.pool(place(a[1])).put(specOf(find(s.w.view, volumeID(a[0])), place(a[1])))
	case "forgets": // the node does not remember which pools have recorded its epoch
		s.w.nodes[nodeID(a[0])].recorded = make(map[ids.Pool]bool)
	case "busy", "free":
		s.w.pool(place(a[0])).busy = cmd == "busy"
	case "absent", "present":
		s.w.pool(place(a[0])).absent = cmd == "absent"
	case "restored": // restored v [1000]: where the epochs begin
		s.w.view = s.w.change()
		find(s.w.view, volumeID(a[0])).Foreign = true
		if len(a) > 1 {
			s.w.view.Base = peer.Epoch(num(1))
			s.w.view.Epoch = max(s.w.view.Epoch, s.w.view.Base)
		}
	case "copy": // copy v a.1 L2 2097152: a replica of that lineage and size is there
		p := place(a[1])
		spec := specOf(find(s.w.view, volumeID(a[0])), p)
		spec.Lineage, spec.Size = lineageID(a[2]), int64(num(3))
		s.w.pool(p).put(spec)
	case "said": // said a 1 2 -3: the oldest command is a ReadMap to a; the replica was made as number 1, and has 2 on record as present, 3 as absent
		e := next(s, &s.cmds).(Command)
		if e.C.Kind != peer.ReadMap || e.Node != nodeID(a[0]) {
			s.t.Fatalf("%s waits", show(e))
		}
		answer := peer.Answer{Birth: ids.ID{byte(num(1))}, Known: []peer.Other{{ID: peer.ReplicaID{Birth: ids.ID{99}}}}}
		for i := range a[2:] {
			n := num(i + 2)
			answer.Known = append(answer.Known, peer.Other{ID: peer.ReplicaID{Birth: ids.ID{byte(max(n, -n))}}, Absent: n < 0})
		}
		s.step(CommandDone{ID: e.ID, Answer: answer})
	case "unasked": // the oldest command gets no answer for long
		next(s, &s.cmds)
	case "unsaid": // its node has two replicas
		s.step(CommandDone{ID: next(s, &s.cmds).(Command).ID, Err: peer.ErrNoReplica})
	case "reborn": // reborn b d: node b's machine comes back as d, with its pools
		s.w.reborn(a[0], a[1])
	case "outsync": // outsync v a: as if removed long ago
		tv := find(s.w.view, volumeID(a[0]))
		tv.InSync = slices.DeleteFunc(tv.InSync, func(p truth.Place) bool { return p.Node == nodeID(a[1]) })
		for _, p := range tv.Replicas {
			if p.Node == nodeID(a[1]) {
				tv.Behind = append(tv.Behind, truth.Behind{Pool: p.Pool, Synced: true, Epoch: tv.LastServed})
			}
		}
	case "copies":
		s.copies = true
	case "lead":
		s.step(Leading{View: s.w.view})
	case "follow":
		s.step(Following{})
	case "view":
		s.step(Changed{View: s.w.view})
	case "commit": // the oldest proposal, or so many
		n := 1
		if len(a) > 0 {
			n = num(0)
		}
		for range n {
			e := next(s, &s.props).(Propose)
			out, err := s.w.apply(e.P)
			if err != nil {
				s.out.WriteString("    (" + err.Error() + ")\n")
			}
			s.step(Decided{ID: e.ID, Outcome: out, Err: err, View: s.w.view})
		}
	case "unknown": // not applied, and never will be
		s.step(Decided{ID: next(s, &s.props).(Propose).ID, Err: truth.ErrUnknown, View: s.w.view})
	case "late": // applied, but nobody learns
		e := next(s, &s.props).(Propose)
		old := s.w.view
		if _, err := s.w.apply(e.P); err != nil {
			s.t.Fatal(err)
		}
		s.step(Decided{ID: e.ID, Err: truth.ErrUnknown, View: old})
	case "elsewhere": // another leader takes over
		if _, err := s.w.apply(truth.TakeOver{Node: nodeID(a[0]), Epoch: peer.Epoch(num(1))}); err != nil {
			s.t.Fatal(err)
		}
		s.step(Changed{View: s.w.view})
	case "open":
		for _, n := range a {
			s.open(n)
		}
	case "fail":
		s.step(Failed{Attempt: s.opening(a[0]).Attempt, Err: errDown})
	case "refuse": // nothing listens there
		s.step(Failed{Attempt: s.opening(a[0]).Attempt, Err: fmt.Errorf("connecting: %w", syscall.ECONNREFUSED)})
	case "lose", "outbid":
		id := nodeID(a[0])
		at := s.live[id]
		delete(s.live, id)
		err := error(peer.ErrLost)
		if cmd == "outbid" {
			err = peer.ErrEpoch
		}
		s.step(Lost{Attempt: at, Err: err})
	case "polled":
		p := next(s, &s.polls).(Poll)
		s.step(Polled{Attempt: p.Attempt, Fenced: s.w.nodes[p.Node].answer()})
	case "suspect":
		s.step(Suspected{Node: nodeID(a[0])})
	case "alive":
		s.step(Alive{Node: nodeID(a[0])})
	case "wait":
		d, err := time.ParseDuration(a[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.wait(d)
	case "opened":
		for _, v := range a {
			s.step(MirrorOpened{Volume: volumeID(v), Epoch: s.w.view.Epoch})
		}
	case "drained":
		s.step(MirrorDrained{Volume: volumeID(a[0]), Epoch: s.w.view.Epoch})
	case "ended":
		s.step(MirrorEnded{Volume: volumeID(a[0]), Epoch: s.w.view.Epoch, Err: errors.New("by itself")})
	case "holds":
		s.step(MirrorHolds{Volume: volumeID(a[0]), Epoch: s.w.view.Epoch, Why: strings.Join(a[1:], " ")})
	case "synced": // the mirror's AddMember, then the end of the resync
		tv := find(s.w.view, volumeID(a[0]))
		if _, err := s.w.apply(truth.AddMember{Epoch: s.w.view.Epoch, Volume: tv.ID, Version: tv.Version, Node: nodeID(a[1])}); err != nil {
			s.t.Fatal(err)
		}
		s.step(MirrorSet{Volume: tv.ID, Node: nodeID(a[1]), Epoch: s.w.view.Epoch, Member: true})
		s.step(ResyncEnded{Volume: tv.ID, Node: nodeID(a[1]), Epoch: s.w.view.Epoch})
		s.step(Changed{View: s.w.view})
	case "shrunk": // the mirror's RemoveMember
		tv := find(s.w.view, volumeID(a[0]))
		if _, err := s.w.apply(truth.RemoveMember{Epoch: s.w.view.Epoch, Volume: tv.ID, Version: tv.Version, Node: nodeID(a[1])}); err != nil {
			s.t.Fatal(err)
		}
		s.step(Changed{View: s.w.view})
		if len(a) < 3 { // else the mirror does not learn of it
			s.step(MirrorSet{Volume: tv.ID, Node: nodeID(a[1]), Epoch: s.w.view.Epoch})
		}
	case "learns": // the mirror, of its RemoveMember
		s.step(MirrorSet{Volume: volumeID(a[0]), Node: nodeID(a[1]), Epoch: s.w.view.Epoch})
	case "slow":
		s.step(MemberSlow{Volume: volumeID(a[0]), Node: nodeID(a[1]), Epoch: s.w.view.Epoch})
	case "unsynced":
		s.step(ResyncEnded{Volume: volumeID(a[0]), Node: nodeID(a[1]), Epoch: s.w.view.Epoch, Err: errors.New("too bad")})
	case "done", "undone":
		e := next(s, &s.cmds).(Command)
		var err error
		if cmd == "undone" {
			err = peer.ErrLost
		}
		s.step(CommandDone{ID: e.ID, Err: err})
	case "voted":
		s.vote()
	case "unvoted": // the outcome is unknown, and it was not applied
		switch e := next(s, &s.votes).(type) {
		case ProposeCreate:
			s.step(VolumeDecided{Volume: e.Volume.ID, Epoch: e.Epoch, Err: truth.ErrUnknown, View: s.w.view})
		case ProposeDelete:
			s.step(VolumeDecided{Volume: e.Volume, Epoch: e.Epoch, Err: truth.ErrUnknown, View: s.w.view})
		}
	case "report": // report b 7 a b: log index 7, reaches a and b; "report b no": not electable
		r := Report{Electable: a[1] != "no"}
		if r.Electable {
			r.LastIndex = uint64(num(1))
		}
		for _, n := range a[2:] {
			r.Reaches = append(r.Reaches, nodeID(n))
		}
		s.step(Reported{Node: nodeID(a[0]), Report: r})
	case "untransferred":
		s.step(TransferFailed{Err: errors.New("no")})
	case "create": // create v2 2 [on...]: free space is 100 in x.1, 90 in x.2 ...
		s.req++
		ev := CreateVolume{Request: s.req, Copies: num(1), Volume: truth.Volume{
			ID: volumeID(a[0]), Lineage: lineageID("L" + a[0]), Name: a[0], Size: mib, Region: mib, Logical: 512}}
		for _, n := range a[2:] {
			ev.On = append(ev.On, nodeID(n))
		}
		ev.Space = s.space()
		s.step(ev)
	case "delete":
		s.req++
		s.step(DeleteVolume{Request: s.req, Volume: volumeID(a[0])})
	case "handover":
		s.req++
		ev := HandOver{Request: s.req}
		if len(a) > 0 {
			ev.To = nodeID(a[0])
		}
		s.step(ev)
	case "again":
		s.req++
		s.step(RestartResync{Request: s.req, Volume: volumeID(a[0]), Node: nodeID(a[1])})
	case "add": // add v c [instead]: free space as for create
		s.req++
		ev := AddReplica{Request: s.req, Volume: volumeID(a[0]), Space: s.space(), Why: truth.WhyAsked}
		if a[1] != "-" {
			ev.Node = nodeID(a[1])
		}
		if len(a) > 2 {
			ev.Instead = nodeID(a[2])
		}
		s.step(ev)
	case "retire":
		s.req++
		s.step(RemoveReplica{Request: s.req, Volume: volumeID(a[0]), Node: nodeID(a[1]), Why: truth.WhyAsked})
	case "spaced": // spaced 2097152: that is free in every pool
		var space []Space
		for _, x := range s.space() {
			space = append(space, Space{Node: x.Node, Pool: x.Pool, Free: int64(num(0))})
		}
		s.step(Spaced{Space: space})
	case "drain", "undrain": // drain b, or drain b.1
		s.w.drain(a[0], cmd == "drain")
		s.step(Changed{View: s.w.view})
	case "tune":
		d, err := time.ParseDuration(a[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.step(Tuned{ReplaceAfter: d})
	case "resize":
		s.req++
		s.step(ResizeVolume{Request: s.req, Volume: volumeID(a[0]), Size: int64(num(1))})
	case "grown": // the oldest command was a Grow, and is carried out
		e := next(s, &s.cmds).(Command)
		rep := s.w.pool(truth.Place{Node: e.Node, Pool: e.C.Spec.Pool}).replica(e.C.Volume)
		if rep.Spec.Lineage != e.C.Spec.Lineage { // as a node does
			s.t.Fatalf("a replica of lineage %v is to grow as one of %v", rep.Spec.Lineage, e.C.Spec.Lineage)
		}
		rep.Spec.Size = e.C.Spec.Size
		s.step(CommandDone{ID: e.ID})
	case "deleted": // the oldest command was a Delete, and is carried out
		e := next(s, &s.cmds).(Command)
		for _, p := range s.w.nodes[e.Node].pools {
			if e.C.Spec.Pool.IsZero() || p.id == e.C.Spec.Pool {
				p.remove(e.C.Volume)
			}
		}
		s.step(CommandDone{ID: e.ID})
	case "force": // force v a L2 [incomplete], or force v a.1 L2
		s.req++
		ev := ForceVolume{Request: s.req, Volume: volumeID(a[0]), Node: nodeID(a[1]), Lineage: lineageID(a[2]), Incomplete: len(a) > 3}
		if strings.Contains(a[1], ".") {
			ev.Node, ev.Pool = place(a[1]).Node, place(a[1]).Pool
		}
		s.step(ev)
	case "bump": // bump v: its set has another version than the core knows
		v := *s.w.view
		v.Volumes = slices.Clone(v.Volumes)
		s.w.view = &v
		find(s.w.view, volumeID(a[0])).Version++
	case "size": // size v 8192: of its replicas as they are, when the volume has grown
		tv := find(s.w.view, volumeID(a[0]))
		tv.Size = int64(num(1))
	case "candidates":
		s.step(Tick{})
		ks, err := s.c.Candidates(volumeID(a[0]))
		for _, k := range ks {
			fmt.Fprintf(&s.out, "    %s in sync %v fenced %v epoch %d seq %d size %d complete %v left under %d reverted %v %s\n", name(k.Place.Pool), k.InSync, k.Fenced, k.Epoch, k.Seq,
				k.Size, k.Complete(), k.Behind.Epoch, k.Reverted, k.Why)
			if k.Restored {
				fmt.Fprintf(&s.out, "        other %v silent %v doubted by [%s] lacks %v with [%s] missing [%s]\n", k.Other, k.Silent, placeNames(k.DoubtedBy), k.Lacks, placeNames(k.With), placeNames(k.Missing))
			}
		}
		if err != nil {
			fmt.Fprintf(&s.out, "    %v\n", err)
		}
	case "keep": // deleted volumes go to the trash from now on
		s.w.keeps = true
	case "restore", "purge":
		s.w.untrash(volumeID(a[0]), cmd == "restore")
		s.step(Changed{View: s.w.view})
	case "status":
		s.status()
	default:
		s.t.Fatalf("unknown command %q", cmd)
	}
}

func (s *script) space() (out []Space) {
	for i, n := range s.w.order {
		for k, p := range s.w.nodes[n].pools {
			out = append(out, Space{Node: n, Pool: p.id, Free: int64(100 - 10*k - i)})
		}
	}
	return out
}

func (s *script) open(n string) {
	o := s.opening(n)
	f, err := s.w.nodes[o.Node].fence(o.Epoch)
	if err != nil {
		s.step(Failed{Attempt: o.Attempt, Err: err})
		return
	}
	s.live[o.Node] = o.Attempt
	s.step(Opened{Attempt: o.Attempt, Fenced: f})
}

// wait lets the time pass, with a Tick whenever Core wants one.
func (s *script) wait(d time.Duration) {
	end := s.now + d
	for range 1000 {
		at, ok := s.c.Next()
		if !ok || at > end {
			break
		}
		if at > s.now {
			s.now = at
		}
		es := s.c.Step(s.now, Tick{})
		if len(es) > 0 {
			fmt.Fprintf(&s.out, "  at %v\n", s.now)
		}
		s.take(es)
		if nx, ok := s.c.Next(); ok && nx <= s.now {
			s.t.Fatalf("Core wants a Tick at %v, and it is %v; so far:\n%s", nx, s.now, s.out.String())
		}
	}
	s.now = end
}

func (s *script) vote() {
	switch e := next(s, &s.votes).(type) {
	case ProposeCreate:
		err := s.w.create(e.Epoch, e.Volume)
		s.step(VolumeDecided{Volume: e.Volume.ID, Epoch: e.Epoch, Err: err, View: s.w.view})
	case ProposeDelete:
		err := s.w.delete(e.Epoch, e.Volume, e.Version)
		s.step(VolumeDecided{Volume: e.Volume, Epoch: e.Epoch, Err: err, View: s.w.view})
	}
}

func (s *script) status() {
	st := s.c.Status()
	fmt.Fprintf(&s.out, "    leading %v epoch %d\n", st.Leading, st.Epoch)
	for _, v := range st.Volumes {
		fmt.Fprintf(&s.out, "    %s %s [%s] %s", name(v.Volume), v.State, placeNames(v.InSync), v.Reason)
		for _, r := range v.Resyncs {
			fmt.Fprintf(&s.out, " (resync %s %s %s)", name(r.Node), r.State, r.Err)
		}
		s.out.WriteString("\n")
	}
	for _, n := range st.Nodes {
		fmt.Fprintf(&s.out, "    node %s up=%v fenced %s busy %s absent %s\n", name(n.Node), n.Reachable, poolNames(n.Fenced), poolNames(n.Busy), poolNames(n.Absent))
	}
	for _, l := range st.Leftovers {
		fmt.Fprintf(&s.out, "    leftover %s in %s\n", name(l.Volume), name(l.Pool))
	}
}
