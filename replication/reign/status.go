package reign

import (
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// State is what becomes of a volume here.
type State string

const (
	// NotLeading: this node does not lead, or has not taken over yet.
	NotLeading State = "standby"
	// TakingOver: members are being fenced, removed or judged.
	TakingOver State = "taking over"
	// Waits: no in-sync member can be reached; Reason names whom it waits for.
	Waits State = "waiting"
	// NeedsForce: no replica that is in sync by the catalog is usable; only volume force, or its disk, brings it back.
	NeedsForce State = "needs volume force"
	// Opening: the mirror is being opened.
	Opening State = "opening"
	// Serving: the mirror answers I/O.
	Serving State = "serving"
	// Holding: the mirror is open and holds I/O; Reason names whom it waits for.
	Holding State = "holding"
	// Draining: I/O is held before a hand-over or a deletion.
	Draining State = "draining"
)

// Status is a snapshot, for people and programs.
type Status struct {
	Leading bool
	Epoch   peer.Epoch // of this reign; 0 before its take-over is applied
	Volumes []VolumeStatus
	Nodes   []NodeStatus
	// Leftovers are replicas of volumes that the catalog does not know.
	Leftovers []LeftoverStatus
}

// VolumeStatus is the state of one volume, with a sentence why it is not served.
type VolumeStatus struct {
	Volume  ids.Volume
	State   State
	Reason  string
	InSync  []truth.Place
	Resyncs []ResyncStatus
}

// ResyncStatus is the progress of one replica's way back. Done and Total are bytes, filled in by the shell while it runs.
type ResyncStatus struct {
	Node        ids.Node
	State       string // "queued", "running", "failed", "unreachable"
	Err         string
	Done, Total int64
	ETASeconds  int64 // -1 when not known
}

// NodeStatus is what this leader knows of a storage node.
type NodeStatus struct {
	Node      ids.Node
	Reachable bool // its session is up
	Suspected bool
	Fenced    []ids.Pool
	Busy      []ids.Pool
	Absent    []ids.Pool
	Err       string
}

// LeftoverStatus is a replica of a volume that the catalog does not know. Whole says that Spec could be read.
type LeftoverStatus struct {
	Node   ids.Node
	Pool   ids.Pool
	Volume ids.Volume
	Spec   peer.Spec
	Whole  bool
}

// Status describes the state.
func (c *Core) Status() Status {
	st := Status{Leading: c.leading}
	r := c.r
	if r != nil && r.applied {
		st.Epoch = r.epoch
	}
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		vs := VolumeStatus{Volume: tv.ID, State: NotLeading, Reason: "another node leads", InSync: tv.InSync}
		if c.leading {
			vs.State, vs.Reason = TakingOver, "the take-over is not committed yet"
		}
		if st.Epoch != 0 && r.vols[tv.ID] != nil {
			v := r.vols[tv.ID]
			vs.State, vs.Reason = v.state, v.reason
			for _, p := range tv.Replicas {
				if !holds(tv.InSync, p.Node) {
					vs.Resyncs = append(vs.Resyncs, c.resyncStatus(v, p))
				}
			}
		}
		st.Volumes = append(st.Volumes, vs)
	}
	if st.Epoch == 0 {
		return st
	}
	for _, n := range r.order {
		st.Nodes = append(st.Nodes, c.nodeStatus(n))
		c.eachLeftover(n, func(p truth.Place, v ids.Volume, _ bool) {
			rep := n.pools[p.Pool].replicas[v]
			st.Leftovers = append(st.Leftovers, LeftoverStatus{Node: p.Node, Pool: p.Pool, Volume: v, Spec: rep.Spec, Whole: !rep.Foreign})
		})
	}
	return st
}

func (c *Core) resyncStatus(v *vol, p truth.Place) ResyncStatus {
	out := ResyncStatus{Node: p.Node, State: "queued", ETASeconds: -1}
	rs := v.resyncOf(p.Node)
	switch {
	case rs != nil && rs.running:
		out.State = "running"
	case c.fencedPool(p) == nil:
		out.State = "unreachable"
	case rs != nil && rs.err != "":
		out.State, out.Err = "failed", rs.err
	}
	return out
}

func (c *Core) nodeStatus(n *node) NodeStatus {
	ns := NodeStatus{Node: n.id, Reachable: n.up, Suspected: c.suspected[n.id], Err: n.err}
	if !n.up {
		ns.Absent = n.expect
		return ns
	}
	for _, id := range n.listed {
		if n.pools[id].Busy {
			ns.Busy = append(ns.Busy, id)
		} else {
			ns.Fenced = append(ns.Fenced, id)
		}
	}
	for _, id := range n.expect {
		if n.pools[id] == nil {
			ns.Absent = append(ns.Absent, id)
		}
	}
	return ns
}
