package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/reign"
)

// Status implements api.Backend: what this node knows. The leader knows most.
func (n *node) Status(ctx context.Context) (api.Status, error) {
	st, r := n.cluster.State(), n.reign.Status()
	out := api.Status{Cluster: n.cluster.ID().String(), Answered: n.cfg.Name, Epoch: st.Epoch, Index: st.Index,
		Virtual: n.cfg.Virtual.Portal, Warnings: []string{}, Nodes: []api.Node{}, Volumes: []api.Volume{}}
	leader := n.cluster.Leader()
	if l, ok := st.Nodes[leader]; ok {
		out.Leader, out.LeaderID = l.Name, leader.String()
	}
	var pools map[ids.Node][]api.Pool
	if n.Leading() {
		out.Bound = n.service.vip != nil && n.service.vip.Bound()
		pools = n.poolCache.get(st, func() map[ids.Node][]api.Pool { return n.poolsOf(ctx, time.Second) })
	} else {
		pools = map[ids.Node][]api.Pool{n.cluster.Self(): n.ownPools()}
	}
	opinions, voters, promised := n.cluster.Opinions(), n.cluster.Voters(), st.Promised()
	for _, c := range adapt.Nodes(st) {
		state := string(opinions[c.ID])
		if c.ID == n.cluster.Self() {
			state = "alive"
		} else if state == "" {
			state = "dead"
		}
		if st.IsFormer(c.ID) {
			state = notJoined
		}
		role := "storage"
		if c.Witness {
			role = "witness"
		}
		left, _ := held(st, c)
		out.Nodes = append(out.Nodes, api.Node{ID: c.ID.String(), Name: c.Name, Role: role, State: state, Voter: voters[c.ID],
			Leader: c.ID == leader, Address: c.Address, Portal: c.Portal, NFS: c.NFS, API: c.API, Version: c.Release, Pools: poolsIn(c, pools, promised), Drained: c.Draining, Left: left})
	}
	if st.Cluster.IsZero() {
		out.Nodes = n.remembered(opinions, voters)
	}
	states := make(map[ids.Volume]reign.VolumeStatus, len(r.Volumes))
	for _, v := range r.Volumes {
		states[v.Volume] = v
	}
	for _, v := range adapt.Volumes(st) {
		out.Volumes = append(out.Volumes, n.volume(st, v, states[v.ID]))
	}
	out.Warnings = append(out.Warnings, warnings(st, voters, out, r)...)
	out.Warnings = append(out.Warnings, drainWarnings(st)...)
	out.Warnings = append(out.Warnings, copyWarnings(st)...)
	if len(st.Shares) > 0 {
		out.Warnings = append(out.Warnings, shareWarnings(adapt.Nodes(st), n.cfg.Virtual.Portal != "")...)
	}
	return out, nil
}

// remembered are the nodes as this one last knew them, before a leader has told it anything since its start.
func (n *node) remembered(opinions map[ids.Node]cluster.Liveness, voters map[ids.Node]bool) []api.Node {
	out := []api.Node{}
	for _, k := range n.memory.get().Nodes {
		role, state := "storage", string(opinions[k.ID])
		if k.Witness {
			role = "witness"
		}
		if k.ID == n.cluster.Self() {
			state = "alive"
		} else if state == "" {
			state = "dead"
		}
		out = append(out, api.Node{ID: k.ID.String(), Name: k.Name, Role: role, State: state, Voter: voters[k.ID], Pools: []api.Pool{}})
	}
	return out
}

// leaderless says for whom a cluster without a leader waits.
func leaderless(s api.Status, voters int, empty bool) string {
	alive, away := 0, []string(nil)
	for _, n := range s.Nodes {
		switch {
		case !n.Voter:
		case n.State == "dead":
			away = append(away, n.Name)
		default:
			alive++
		}
	}
	text := fmt.Sprintf("no node leads: %d of %d voting nodes are needed", voters/2+1, voters)
	if need := voters/2 + 1 - alive; need > 0 && len(away) > 0 {
		text += fmt.Sprintf("; waiting for %s", strings.Join(away, " or "))
		if need > 1 {
			text += fmt.Sprintf(" (%d of them)", need)
		}
	}
	if empty {
		text += "; which volumes there are is not known here before that"
	}
	return text
}

// poolsIn describes a node's pools: those of the catalog, with what the node said of them.
func poolsIn(c catalog.Node, said map[ids.Node][]api.Pool, promised map[ids.Pool]catalog.Promise) []api.Pool {
	all := []api.Pool{}
	for _, p := range c.Pools {
		q := api.Pool{ID: p.ID.String(), Node: c.Name, Path: p.Path, Size: -1, Free: -1, State: "unknown"}
		told, ok := said[c.ID]
		if i := slices.IndexFunc(told, func(t api.Pool) bool { return t.ID == q.ID }); i >= 0 {
			q = told[i]
		} else if ok {
			q.State = "absent"
		}
		q.Drained, q.Promised, q.Trash = p.Draining, promised[p.ID].All, promised[p.ID].Trash
		all = append(all, q)
	}
	return all
}

// volume describes a volume; of its state only the leader knows.
func (n *node) volume(st *catalog.State, v catalog.Volume, r reign.VolumeStatus) api.Volume {
	out := api.Volume{ID: v.ID.String(), Name: v.Name, Size: v.Size, State: string(r.State), Reason: r.Reason,
		Share: v.Share, Served: r.State == reign.Serving, Epoch: v.LastServed, Replicas: []api.Replica{},
		Durability: durabilityName(v), Cached: v.Memory || len(v.Volatile) > 0, Losses: v.TimesLost(), Restored: v.Foreign}
	if out.State == "" {
		out.State = string(reign.NotLeading)
	}
	if out.State == string(reign.NotLeading) && n.cluster.Leader().IsZero() {
		out.Reason = "no node leads"
	}
	m, open := n.service.mirror(v.ID)
	if open {
		out.Dirty = m.Dirty
		if m.Holding {
			out.Holding = m.HoldCause
		}
	}
	out.Scrub = scrubState(v, m)
	for _, p := range v.Replicas {
		d := describe(st, p, v.InSync, r, m)
		if v.Foreign {
			d.State = "not known"
		}
		d.Leaves = leavingState(v, p)
		out.Replicas = append(out.Replicas, d)
	}
	for _, p := range v.Gone {
		out.Gone = append(out.Gone, api.Place{Node: nodeName(st, p.Node), Pool: poolPath(st, p)})
	}
	if e, ok := st.Exports[v.ID]; ok {
		l := n.lun(st, v, e)
		out.LUN = &l
	}
	return out
}

// describe tells where a replica is and how it is.
func describe(st *catalog.State, p catalog.Place, inSync []catalog.Place, r reign.VolumeStatus, m mirror.Status) api.Replica {
	out := api.Replica{Node: nodeName(st, p.Node), Pool: poolPath(st, p), State: "stale", Seconds: -1}
	if slices.Contains(inSync, p) {
		out.State = "in sync"
		return out
	}
	for _, s := range r.Resyncs {
		if s.Node == p.Node {
			out.State, out.Error, out.Done, out.Total, out.Seconds = s.State, s.Err, s.Done, s.Total, float64(s.ETASeconds)
		}
	}
	if s := m.Resync; s != nil && s.Node == p.Node {
		out.State, out.Done, out.Total, out.Copied, out.Seconds = "resync", s.Done, s.Total, s.Copied, s.ETA
	}
	if st.Resync.Paused {
		out.Seconds = -1 // nobody knows
	}
	return out
}

// poolPath is the path of a place's pool, or its id.
func poolPath(st *catalog.State, p catalog.Place) string {
	for _, q := range st.Nodes[p.Node].Pools {
		if q.ID == p.Pool {
			return q.Path
		}
	}
	return p.Pool.String()
}

func nodeName(st *catalog.State, id ids.Node) string {
	if id.IsZero() {
		return ""
	}
	if c, ok := st.Nodes[id]; ok {
		return c.Name
	}
	return id.String()
}

// lun describes an export.
func (n *node) lun(st *catalog.State, v catalog.Volume, e catalog.Export) api.LUN {
	l := api.LUN{Volume: v.Name, Target: front.TargetName(v.Name), Number: e.LUN, Initiators: e.Initiators, CHAPUser: e.CHAPUser, Paths: pathsOf(e.Paths)}
	if l.Initiators == nil {
		l.Initiators = []string{}
	}
	l.Portals = n.portals(st)
	return l
}

// portals are the cluster's for hosts, the virtual one first.
func (n *node) portals(st *catalog.State) (all []string) {
	if n.cfg.Virtual.Portal != "" {
		all = append(all, n.cfg.Virtual.Portal)
	}
	for _, c := range adapt.Nodes(st) {
		if !c.Witness && c.Portal != "" {
			all = append(all, c.Portal)
		}
	}
	return all
}

// notJoined is the state of a node that is known from a backup alone.
const notJoined = "not joined"

// lowPool is the part of a pool that should stay free.
const lowPool = 50

// warnings are what an admin should mend.
func warnings(st *catalog.State, voters map[ids.Node]bool, s api.Status, r reign.Status) (out []string) {
	count := 0
	for _, v := range voters {
		if v {
			count++
		}
	}
	if count == 2 {
		out = append(out, "two nodes vote: when either dies, service ends until it is back; add a witness (pmsapp join --witness)")
	}
	if s.Leader == "" {
		out = append(out, leaderless(s, count, st.Cluster.IsZero()))
	}
	for _, n := range s.Nodes {
		switch n.State {
		case "dead":
			out = append(out, fmt.Sprintf("node %s does not answer", n.Name))
		case notJoined:
			out = append(out, fmt.Sprintf("node %s has not joined since the catalog was restored", n.Name))
		}
		for _, p := range n.Pools {
			switch {
			case p.State == "ok" && p.Size > 0 && p.Free < p.Size/lowPool:
				out = append(out, fmt.Sprintf("pool %s of node %s is almost full: %d MiB are free", p.Path, n.Name, p.Free>>20))
			case p.State != "ok" && p.State != "unknown":
				out = append(out, fmt.Sprintf("pool %s of node %s: %s", p.Path, n.Name, p.State))
			}
		}
	}
	for _, v := range s.Volumes {
		synced := 0
		for _, p := range v.Replicas {
			if p.State == "in sync" {
				synced++
			}
		}
		if synced < len(v.Replicas) && !v.Restored {
			out = append(out, fmt.Sprintf("volume %s has %d of %d replicas in sync", v.Name, synced, len(v.Replicas)))
		}
		if w := standsStill(s, v); w != "" {
			out = append(out, w)
		}
	}
	for _, l := range r.Leftovers {
		if v, ok := st.Volumes[l.Volume]; ok {
			out = append(out, fmt.Sprintf("node %s has a former replica of volume %s, which only takes space: pmsapp volume replica add %s --node %s uses that again",
				nodeName(st, l.Node), v.Name, v.Name, nodeName(st, l.Node)))
			continue
		}
		unknown := fmt.Sprintf("node %s has a replica of volume %s, which the catalog does not know", nodeName(st, l.Node), l.Volume)
		if st.Base != 0 && l.Whole { // it may be newer than the backup, or have been deleted
			unknown += fmt.Sprintf(": pmsapp volume adopt %s --name NAME brings it back, if it is missed", l.Volume)
		}
		out = append(out, unknown)
	}
	return out
}

// standsStill tells why a volume's I/O waits, or will as soon as there is any; empty if it does not.
func standsStill(s api.Status, v api.Volume) string {
	switch reign.State(v.State) {
	case reign.Waits, reign.NeedsForce:
		return fmt.Sprintf("volume %s is not served: %s", v.Name, v.Reason)
	}
	if v.Holding != "" {
		return fmt.Sprintf("volume %s holds its I/O: %s", v.Name, v.Holding)
	}
	if s.Leader == "" || !v.Served {
		return ""
	}
	var away []string
	for _, p := range v.Replicas {
		if p.State != "in sync" {
			continue
		}
		if !slices.ContainsFunc(s.Nodes, func(n api.Node) bool { return n.Name == p.Node && n.State == "dead" }) {
			return ""
		}
		away = append(away, p.Node)
	}
	return fmt.Sprintf("volume %s: its I/O will wait: no node with an in-sync replica answers (%s)", v.Name, strings.Join(away, ", "))
}

// Events implements api.Backend.
func (n *node) Events(_ context.Context, after uint64, limit int) ([]api.Event, error) {
	st := n.cluster.State()
	var out []api.Event
	for _, e := range st.Events {
		if e.Index <= after {
			continue
		}
		ev := api.Event{Index: e.Index, Time: e.Time, Kind: e.Kind, Node: nodeName(st, e.Node), Text: e.Text}
		if !e.Volume.IsZero() {
			ev.Volume = e.Volume.String()
			if v, ok := st.Volumes[e.Volume]; ok {
				ev.Volume = v.Name
			}
		}
		out = append(out, ev)
	}
	return out[max(0, len(out)-limit):], nil
}
