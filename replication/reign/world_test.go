package reign

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// world is a model of what surrounds a Core: a catalog with the contract's rules, and nodes that fence.
type world struct {
	view  *truth.View
	nodes map[ids.Node]*mnode
	order []ids.Node
	keeps bool // deleted volumes go to the trash
	trash []truth.Volume
}

// mnode is a storage node.
type mnode struct {
	id       ids.Node
	down     bool
	accepted peer.Epoch
	recorded map[ids.Pool]bool            // which pools have recorded accepted: beside it on the catalog disk
	session  map[ids.Pool]peer.FencedPool // what the newest session found: Poll repeats what was before the fence
	pools    []*mpool
}

type mpool struct {
	id       ids.Pool
	absent   bool
	busy     bool
	accepted []peer.EpochRange
	replicas []peer.FencedReplica
}

const mib = 1 << 20

func nodeID(s string) (id ids.Node)     { copy(id[:], s); return }
func poolID(s string) (id ids.Pool)     { copy(id[:], s); return }
func volumeID(s string) (id ids.Volume) { copy(id[:], s); return }
func lineageID(s string) (id ids.Lineage) {
	copy(id[:], s)
	return
}

// name is the readable form of an id from the functions above.
func name[T ~[16]byte](id T) string { return string(bytes.TrimRight(id[:], "\x00")) }

func newWorld() *world { return &world{view: &truth.View{Index: 1}, nodes: make(map[ids.Node]*mnode)} }

func (w *world) addNode(n string, witness bool, pools ...string) {
	id := nodeID(n)
	v := w.change()
	tn := truth.Node{ID: id, Name: n, Witness: witness}
	if !witness {
		m := &mnode{id: id}
		for _, p := range pools {
			m.pools = append(m.pools, &mpool{id: poolID(p)})
			tn.Pools = append(tn.Pools, poolID(p))
		}
		w.nodes[id] = m
		w.order = append(w.order, id)
	}
	v.Nodes = append(v.Nodes, tn)
	w.view = v
}

// place is "a.1": pool a.1 of node a.
func place(s string) truth.Place {
	n, _, _ := strings.Cut(s, ".")
	return truth.Place{Node: nodeID(n), Pool: poolID(s)}
}

func (w *world) pool(p truth.Place) *mpool {
	for _, mp := range w.nodes[p.Node].pools {
		if mp.id == p.Pool {
			return mp
		}
	}
	return nil
}

func (w *world) addVolume(id string, places ...string) {
	v := w.change()
	tv := truth.Volume{ID: volumeID(id), Lineage: lineageID("L" + id), Name: id, Size: mib, Region: mib, Logical: 512, Version: 1}
	for _, s := range places {
		p := place(s)
		tv.Replicas = append(tv.Replicas, p)
		w.pool(p).put(specOf(&tv, p))
	}
	tv.InSync = slices.Clone(tv.Replicas)
	v.Volumes = append(v.Volumes, tv)
	w.view = v
}

func (p *mpool) replica(v ids.Volume) *peer.FencedReplica {
	for i := range p.replicas {
		if p.replicas[i].Spec.Volume == v {
			return &p.replicas[i]
		}
	}
	return nil
}

func (p *mpool) put(s peer.Spec) {
	if r := p.replica(s.Volume); r != nil {
		*r = peer.FencedReplica{Spec: s}
		return
	}
	p.replicas = append(p.replicas, peer.FencedReplica{Spec: s})
}

func (p *mpool) remove(v ids.Volume) {
	p.replicas = slices.DeleteFunc(p.replicas, func(r peer.FencedReplica) bool { return r.Spec.Volume == v })
}

// change begins the next state.
func (w *world) change() *truth.View {
	v := *w.view
	v.Index++
	v.Volumes = slices.Clone(v.Volumes)
	for i := range v.Volumes {
		v.Volumes[i].InSync = slices.Clone(v.Volumes[i].InSync)
	}
	v.Nodes = slices.Clone(v.Nodes)
	v.Deleted, v.Trash = slices.Clone(v.Deleted), slices.Clone(v.Trash)
	return &v
}

var errDown = errors.New("connection refused")

// fence is what a node does with a new session.
func (m *mnode) fence(e peer.Epoch) (peer.Fenced, error) {
	if m.down {
		return peer.Fenced{}, errDown
	}
	high := m.accepted
	for _, p := range m.pools {
		if n := len(p.accepted); !p.absent && n > 0 {
			high = max(high, p.accepted[n-1].Hi)
		}
	}
	if high > e {
		return peer.Fenced{}, &peer.EpochError{Accepted: high}
	}
	if e > m.accepted || m.recorded == nil {
		m.accepted, m.recorded = e, make(map[ids.Pool]bool)
	}
	m.session = make(map[ids.Pool]peer.FencedPool)
	f := m.answer()
	f.Highest = high
	return f, nil
}

// answer is what a node says to a session of the epoch that it has accepted: to the fence and to Poll.
func (m *mnode) answer() (f peer.Fenced) {
	for _, p := range m.pools {
		if !p.absent {
			fp, known := m.session[p.id]
			if !known {
				fp = p.fence(m.accepted, m.recorded[p.id])
				m.session[p.id] = fp
			}
			m.recorded[p.id] = true
			fp.Busy, fp.Replicas = p.busy, slices.Clone(p.replicas)
			f.Pools = append(f.Pools, fp)
		}
	}
	return f
}

func (p *mpool) fence(e peer.Epoch, recorded bool) peer.FencedPool {
	fp := peer.FencedPool{Pool: p.id, Busy: p.busy, Accepted: p.accepted, Replicas: slices.Clone(p.replicas)}
	if n := len(p.accepted); n > 0 {
		fp.Previous = p.accepted[n-1].Hi
	}
	if recorded {
		fp.Reverted = fp.Previous != e
	} else {
		p.accepted = peer.Accept(p.accepted, e)
	}
	return fp
}

// apply is the catalog's state machine.
func (w *world) apply(p truth.Proposal) (truth.Outcome, error) {
	v := w.change()
	out := truth.Outcome{Index: v.Index}
	epoch := v.Epoch
	switch p := p.(type) {
	case truth.TakeOver:
		if p.Epoch <= v.Epoch {
			return out, &truth.Rejection{Why: truth.WrongEpoch, Epoch: v.Epoch}
		}
		v.Epoch, v.Leader, epoch = p.Epoch, p.Node, p.Epoch
	case truth.RemoveUnfenced:
		epoch = p.Epoch
		for i := range v.Volumes {
			tv := &v.Volumes[i]
			kept := slices.DeleteFunc(slices.Clone(tv.InSync), func(m truth.Place) bool { return slices.Contains(p.Remove, m.Pool) })
			fenced := slices.ContainsFunc(kept, func(m truth.Place) bool { return slices.Contains(p.Fenced, m.Pool) })
			switch {
			case len(kept) == len(tv.InSync):
			case !fenced:
				out.Left = append(out.Left, tv.ID)
			default:
				tv.InSync = kept
				tv.Version++
			}
		}
	case truth.Served:
		epoch = p.Epoch
		for _, vv := range p.Volumes {
			if tv := find(v, vv.Volume); tv != nil && tv.Version == vv.Version {
				tv.LastServed = p.Epoch
				if vv.Lost {
					tv.Losses, tv.Volatile = tv.Losses+1, nil
				}
			} else {
				out.Left = append(out.Left, vv.Volume)
			}
		}
	case truth.RemoveMember:
		epoch = p.Epoch
		tv := find(v, p.Volume)
		switch {
		case p.Epoch != v.Epoch:
		case tv == nil:
			return out, &truth.Rejection{Why: truth.NoSuchVolume, Epoch: v.Epoch}
		case tv.Version != p.Version:
			return out, &truth.Rejection{Why: truth.WrongVersion, Epoch: v.Epoch, Current: *tv}
		case len(tv.InSync) == 1:
			return out, &truth.Rejection{Why: truth.LastMember, Epoch: v.Epoch, Current: *tv}
		default:
			tv.InSync = slices.DeleteFunc(tv.InSync, func(m truth.Place) bool { return m.Node == p.Node })
			tv.Version++
			out.Version, out.InSync = tv.Version, tv.InSync
		}
	case truth.AddMember:
		epoch = p.Epoch
		tv := find(v, p.Volume)
		if p.Epoch == v.Epoch && (tv == nil || tv.Version != p.Version) {
			return out, &truth.Rejection{Why: truth.WrongVersion, Epoch: v.Epoch}
		}
		for _, m := range tv.Replicas {
			if m.Node == p.Node && p.Epoch == v.Epoch {
				tv.InSync = append(tv.InSync, m)
				tv.Version++
				out.Version, out.InSync = tv.Version, tv.InSync
			}
		}
	case truth.Force:
		epoch = p.Epoch
		tv := find(v, p.Volume)
		if p.Epoch == v.Epoch && (tv == nil || tv.Version != p.Version) {
			return out, &truth.Rejection{Why: truth.WrongVersion, Epoch: v.Epoch}
		}
		if b, ok := tv.BehindIn(p.Place.Pool); ok && !b.Complete() && !p.Incomplete {
			return out, truth.ErrRejected
		}
		tv.Adopted, tv.Lineage = truth.Adoption{Pool: p.Place.Pool, Lineage: p.From, Short: p.Short}, p.Lineage
		if tv.Foreign { // as catalog.ForceVolume has it
			before := tv.Replicas
			tv.Foreign, tv.Size, tv.Replicas, tv.Gone = false, max(tv.Size, p.Size), []truth.Place{p.Place}, slices.Clone(p.Others)
			for _, q := range before {
				if q.Node == p.Place.Node && q != p.Place {
					tv.Gone = append(tv.Gone, q)
				} else if q != p.Place {
					tv.Replicas = append(tv.Replicas, q)
				}
			}
		}
		tv.InSync, tv.LastServed, tv.Behind = []truth.Place{p.Place}, 0, nil
		tv.Version++
	case truth.BeginCopy:
		epoch = p.Epoch
		if tv := find(v, p.Volume); tv != nil {
			tv.Behind = slices.Clone(tv.Behind)
			for i := range tv.Behind {
				tv.Behind[i].Copying = tv.Behind[i].Copying || tv.Behind[i].Pool == p.Pool
			}
		}
	case truth.AddReplica, truth.RetireReplica, truth.DropReplica, truth.ForgetReplica, truth.ResizeVolume:
		if err := applyReplicas(v, p); err != nil {
			return out, err
		}
	}
	if epoch != v.Epoch {
		return out, &truth.Rejection{Why: truth.WrongEpoch, Epoch: v.Epoch}
	}
	for i := range v.Volumes {
		w.follow(&v.Volumes[i])
	}
	w.view = v
	return out, nil
}

// follow keeps what is known of the replicas outside of a set.
func (w *world) follow(tv *truth.Volume) {
	var out []truth.Behind
	for _, p := range tv.Replicas {
		b, known := tv.BehindIn(p.Pool)
		old := find(w.view, tv.ID)
		switch {
		case slices.Contains(tv.InSync, p):
			continue
		case !known:
			b = truth.Behind{Pool: p.Pool}
			if b.Synced = old != nil && old.Lineage == tv.Lineage && slices.Contains(old.InSync, p); b.Synced {
				b.Epoch = tv.LastServed
			}
		}
		out = append(out, b)
	}
	tv.Behind = out
}

func (w *world) create(e peer.Epoch, tv truth.Volume) error {
	if e != w.view.Epoch {
		return &truth.Rejection{Why: truth.WrongEpoch, Epoch: w.view.Epoch}
	}
	if find(w.view, tv.ID) != nil {
		return nil
	}
	for _, x := range w.view.Volumes {
		if x.Name == tv.Name {
			return &truth.Rejection{Why: truth.NoSuchVolume, Epoch: w.view.Epoch}
		}
	}
	v := w.change()
	tv.Version = 1
	v.Volumes = append(v.Volumes, tv)
	w.view = v
	return nil
}

func (w *world) delete(e peer.Epoch, id ids.Volume, version uint64) error {
	if e != w.view.Epoch {
		return &truth.Rejection{Why: truth.WrongEpoch, Epoch: w.view.Epoch}
	}
	v := w.change()
	if tv := find(v, id); tv != nil && tv.Version != version {
		return &truth.Rejection{Why: truth.WrongVersion, Epoch: w.view.Epoch, Current: *tv}
	} else if tv != nil && w.keeps {
		w.trash = append(w.trash, *tv)
		v.Trash = append(v.Trash, id)
	} else if tv != nil {
		v.Deleted = append(v.Deleted, id)
	}
	v.Volumes = slices.DeleteFunc(v.Volumes, func(x truth.Volume) bool { return x.ID == id })
	w.view = v
	return nil
}

// untrash restores a volume, or purges it.
func (w *world) untrash(id ids.Volume, restore bool) {
	v := w.change()
	i := slices.IndexFunc(w.trash, func(x truth.Volume) bool { return x.ID == id })
	if tv := w.trash[i]; restore {
		tv.Version++
		v.Volumes = append(v.Volumes, tv)
	} else {
		v.Deleted = append(v.Deleted, id)
	}
	w.trash = slices.Delete(w.trash, i, i+1)
	v.Trash = slices.DeleteFunc(v.Trash, func(x ids.Volume) bool { return x == id })
	w.view = v
}

func find(v *truth.View, id ids.Volume) *truth.Volume {
	for i := range v.Volumes {
		if v.Volumes[i].ID == id {
			return &v.Volumes[i]
		}
	}
	return nil
}

func placeNames(ps []truth.Place) string {
	var out []string
	for _, p := range ps {
		out = append(out, name(p.Pool))
	}
	return strings.Join(out, ",")
}

func poolNames(ps []ids.Pool) string {
	var out []string
	for _, p := range ps {
		out = append(out, name(p))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// show writes an effect as a line.
func show(e Effect) string {
	switch e := e.(type) {
	case Propose:
		return "propose " + showProposal(e.P)
	case OpenSession:
		return fmt.Sprintf("open session %s epoch %d", name(e.Node), e.Epoch)
	case CloseSession:
		return "close session " + name(e.Node)
	case Poll:
		return "poll " + name(e.Node)
	case OpenMirror:
		var ms []string
		for _, m := range e.Members {
			ms = append(ms, fmt.Sprintf("%s(seq %d)", name(m.Place.Pool), m.Replica.Seq))
		}
		memory := ""
		if e.Volume.Memory {
			memory = " memory"
		}
		return fmt.Sprintf("open mirror %s epoch %d version %d: %s%s", name(e.Volume.ID), e.Epoch, e.Volume.Version, strings.Join(ms, " "), memory)
	case DrainMirror:
		return "drain mirror " + name(e.Volume)
	case CloseMirror:
		return fmt.Sprintf("close mirror %s: %s", name(e.Volume), e.Cause)
	case StartResync:
		return fmt.Sprintf("start resync %s to %s empty=%v", name(e.Volume), name(e.Member.Place.Pool), e.Empty)
	case ResizeMirror:
		return fmt.Sprintf("resize mirror %s to %d", name(e.Volume.ID), e.Volume.Size)
	case SetDurability:
		return fmt.Sprintf("durability of %s: memory %v, volatile %v", name(e.Volume.ID), e.Memory, e.Volatile)
	case AskSpace:
		return "ask for space"
	case StopResync:
		return fmt.Sprintf("stop resync %s to %s", name(e.Volume), name(e.Node))
	case RetireMember:
		return fmt.Sprintf("retire member %s of %s, of %d", name(e.Node), name(e.Volume), len(e.Set))
	case Command:
		return fmt.Sprintf("command %s to %s: %s", map[peer.Kind]string{
			peer.Create: "create", peer.Reset: "reset", peer.Delete: "delete", peer.Grow: "grow", peer.ReadMap: "ask"}[e.C.Kind], name(e.Node), name(e.C.Volume))
	case ProposeCreate:
		return fmt.Sprintf("propose creation of %s epoch %d on %s", name(e.Volume.ID), e.Epoch, placeNames(e.Volume.Replicas))
	case ProposeDelete:
		return fmt.Sprintf("propose deletion of %s@%d epoch %d", name(e.Volume), e.Version, e.Epoch)
	case AskReports:
		var ns []string
		for _, n := range e.Nodes {
			ns = append(ns, name(n))
		}
		return "ask " + strings.Join(ns, " ")
	case TransferLeadership:
		return "transfer to " + name(e.To)
	case Reply:
		return fmt.Sprintf("reply %d: %v", e.Request, e.Err)
	case Tell:
		return fmt.Sprintf("tell %s: %s", e.Kind, e.Text)
	}
	return fmt.Sprintf("%T", e)
}

func showProposal(p truth.Proposal) string {
	switch p := p.(type) {
	case truth.TakeOver:
		return fmt.Sprintf("TakeOver %s epoch %d", name(p.Node), p.Epoch)
	case truth.RemoveUnfenced:
		return fmt.Sprintf("RemoveUnfenced epoch %d fenced %s remove %s", p.Epoch, poolNames(p.Fenced), poolNames(p.Remove))
	case truth.Served:
		var vs []string
		for _, v := range p.Volumes {
			vs = append(vs, fmt.Sprintf("%s@%d", name(v.Volume), v.Version))
			if v.Lost {
				vs = append(vs, "(lost)")
			}
		}
		return fmt.Sprintf("Served epoch %d %s", p.Epoch, strings.Join(vs, " "))
	case truth.RemoveMember:
		return fmt.Sprintf("RemoveMember epoch %d %s@%d %s", p.Epoch, name(p.Volume), p.Version, name(p.Node))
	case truth.AddMember:
		return fmt.Sprintf("AddMember epoch %d %s@%d %s", p.Epoch, name(p.Volume), p.Version, name(p.Node))
	}
	if p, ok := p.(truth.Force); ok {
		more := ""
		if p.Size != 0 || p.Others != nil {
			more = fmt.Sprintf(" of %s size %d others %s", name(p.From), p.Size, placeNames(p.Others))
		}
		return fmt.Sprintf("Force epoch %d %s@%d %s incomplete %v short %v%s", p.Epoch, name(p.Volume), p.Version, name(p.Place.Pool), p.Incomplete, p.Short, more)
	}
	if p, ok := p.(truth.BeginCopy); ok {
		return fmt.Sprintf("BeginCopy epoch %d %s %s", p.Epoch, name(p.Volume), name(p.Pool))
	}
	return showReplicas(p)
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// reborn gives the pools of a node, and the replicas in them, to a new identity of its machine, as the catalog does.
func (w *world) reborn(old, id string) {
	m := w.nodes[nodeID(old)]
	delete(w.nodes, m.id)
	w.order[slices.Index(w.order, m.id)] = nodeID(id)
	m.id, m.accepted, m.recorded = nodeID(id), 0, nil
	w.nodes[m.id] = m
	v := w.change()
	for i := range v.Nodes {
		if v.Nodes[i].ID == nodeID(old) {
			v.Nodes[i].ID, v.Nodes[i].Name = m.id, id
		}
	}
	move := func(ps []truth.Place) []truth.Place {
		ps = slices.Clone(ps)
		for i := range ps {
			if ps[i].Node == nodeID(old) {
				ps[i].Node = m.id
			}
		}
		return ps
	}
	for i := range v.Volumes {
		tv := &v.Volumes[i]
		tv.Replicas, tv.InSync = move(tv.Replicas), move(tv.InSync)
		tv.Version++
	}
	w.view = v
}
