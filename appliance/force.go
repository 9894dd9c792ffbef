package appliance

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// ForceVolume implements api.Backend. Without the volume's name as a confirmation nothing is done, and the answer says what would be.
func (n *node) ForceVolume(ctx context.Context, request, name string, f api.Force) (api.Forced, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Forced{}, err
	}
	var to catalog.Node
	var pool ids.Pool
	if f.Replica != "" {
		if to, err = n.named(f.Replica); err != nil {
			return api.Forced{}, err
		}
		if pool, err = poolAt(to, f.Pool); err != nil {
			return api.Forced{}, err
		}
	}
	seed := sha256.Sum256([]byte("force " + n.cluster.ID().String() + " " + request))
	var lineage ids.Lineage
	copy(lineage[:], seed[:])
	if v.Lineage == lineage { // its answer was lost
		return api.Forced{Volume: v.Name, Done: true}, nil
	}
	all, err := n.reign.Candidates(v.ID)
	if err != nil {
		return api.Forced{}, told(err)
	}
	out := n.wouldForce(v, to, pool, all)
	switch {
	case f.Replica == "":
		return out, nil
	case out.Why != "":
		return out, api.Errorf(api.ErrConflict, "pmsapp volume show "+v.Name+" tells where the replicas are", "the replica of %s on %s cannot be adopted: %s", v.Name, to.Name, out.Why)
	case (incomplete(out, f.Pool) || len(silent(out)) > 0) && !f.Incomplete:
		return out, api.Errorf(api.ErrConflict, "if there is no better one, --incomplete accepts it", "the replica of %s on %s %s: %s", v.Name, to.Name,
			map[bool]string{true: "may not be the newest", false: "is no copy of any one moment"}[v.Foreign], out.Loss)
	case f.Confirm == "":
		return out, nil
	case f.Confirm != v.Name:
		return out, api.Errorf(api.ErrInvalid, "", "confirm: %q is not the name of the volume", f.Confirm)
	}
	if err := n.reign.ForceVolume(ctx, reign.ForceVolume{Volume: v.ID, Node: to.ID, Pool: pool, Lineage: lineage, Incomplete: f.Incomplete}); err != nil {
		return out, told(err)
	}
	n.awaitServed(ctx, v.ID)
	out.Done = true
	return out, nil
}

// poolAt finds a node's pool by its path, or its id; no name is none.
func poolAt(n catalog.Node, name string) (ids.Pool, error) {
	for _, p := range n.Pools {
		if name != "" && (p.Path == name || p.ID.String() == name) {
			return p.ID, nil
		}
	}
	if name != "" {
		return ids.Pool{}, api.Errorf(api.ErrNotFound, "pmsapp pool list shows them", "node %s has no pool %q", n.Name, name)
	}
	return ids.Pool{}, nil
}

// nodeNames are the names of places' nodes; the id of one that is known no more.
func nodeNames(st *catalog.State, ps []truth.Place) (out []string) {
	for _, p := range ps {
		if name := nodeName(st, p.Node); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// wouldForce says what it means to go on with the replica on a node.
func (n *node) wouldForce(v catalog.Volume, to catalog.Node, pool ids.Pool, all []reign.Candidate) api.Forced {
	st := n.cluster.State()
	out := api.Forced{Volume: v.Name, Replica: to.Name, Replicas: []api.ForceReplica{}, MayServe: []string{}, Restored: v.Foreign}
	if !to.ID.IsZero() {
		out.Why = "there is none"
	}
	found := 0
	for _, k := range all {
		r := api.ForceReplica{Node: nodeName(st, k.Place.Node), Pool: poolPath(st, catalog.Place(k.Place)), PoolID: k.Place.Pool.String(), InSync: k.InSync, Reached: k.Fenced, Epoch: uint64(k.Epoch),
			Left: k.Behind.Time, LeftEpoch: uint64(k.Behind.Epoch), Incomplete: !k.Complete(), Reverted: k.Reverted,
			Size: k.Size, Marked: int64(k.Active) * v.Region, Why: k.Why}
		if k.Restored {
			r.Marks, r.Other, r.Silent = uint64(k.Seq), k.Other, k.Silent
			r.DoubtedBy, r.With, r.Missing = nodeNames(st, k.DoubtedBy), nodeNames(st, k.With), nodeNames(st, k.Missing)
		}
		out.Replicas = append(out.Replicas, r)
		// Of several on the node a usable one counts.
		if k.Place.Node == to.ID && (pool.IsZero() || k.Place.Pool == pool) && (found == 0 || k.Why == "") {
			out.Why, out.Loss = k.Why, loss(v, r)
			if k.Why == "" {
				found++
			}
		}
		if !k.Fenced && !slices.Contains(out.MayServe, r.Node) {
			out.MayServe = append(out.MayServe, nodeName(st, k.Place.Node))
		}
	}
	if v.Foreign {
		out.Unseen, out.MayServe = n.unseen(st)
		if len(out.Unseen) > 0 {
			out.Loss += " A newer one may be where nobody has looked: " + strings.Join(out.Unseen, "; ") + "."
		}
	}
	if quiet := silent(out); len(quiet) > 0 {
		out.Loss += " What is on record of the others was not said by that on " + strings.Join(quiet, " and ") + ", where it was found."
	}
	if found > 1 {
		out.Why = fmt.Sprintf("the node has %d: name the pool", found)
	}
	out.Loss += " The other replicas are overwritten with copies of it, or deleted, as soon as they are reached: save them before, if you may want them."
	out.Running = "Hosts that use the volume have cached what it had: stop them before, and have them check their file systems after."
	if len(out.MayServe) > 0 {
		out.Running += fmt.Sprintf(" %s cannot be reached from here, and may still be serving it to hosts that reach %s: stop what runs there, or cut it off.",
			strings.Join(out.MayServe, " and "), map[bool]string{true: "it", false: "them"}[len(out.MayServe) == 1])
	}
	return out
}

// incomplete tells whether the named replica is no copy of any one moment.
func incomplete(f api.Forced, pool string) bool {
	return slices.ContainsFunc(f.Replicas, func(r api.ForceReplica) bool {
		return r.Node == f.Replica && (pool == "" || r.Pool == pool || r.PoolID == pool) && r.Why == "" && r.Incomplete
	})
}

// silent are the nodes of replicas that were found and did not say what they know.
func silent(f api.Forced) (out []string) {
	for _, r := range f.Replicas {
		if r.Silent && !slices.Contains(out, r.Node) {
			out = append(out, r.Node)
		}
	}
	return out
}

// unseen tells, after a restore, where replicas may be that nobody can look at now, and which nodes may serve volumes that this cluster does not
// know to be theirs.
func (n *node) unseen(st *catalog.State) (where, nodes []string) {
	known := map[ids.Node]reign.NodeStatus{}
	for _, s := range n.reign.Status().Nodes {
		known[s.Node] = s
	}
	for _, c := range adapt.Nodes(st) {
		s := known[c.ID]
		switch {
		case c.Witness:
		case st.IsFormer(c.ID):
			where, nodes = append(where, fmt.Sprintf("node %s has not joined since the restore", c.Name)), append(nodes, c.Name)
		case !s.Reachable:
			where, nodes = append(where, fmt.Sprintf("node %s cannot be reached", c.Name)), append(nodes, c.Name)
		default:
			for _, p := range c.Pools {
				if !slices.Contains(s.Fenced, p.ID) {
					where = append(where, fmt.Sprintf("pool %s of node %s is absent", p.Path, c.Name))
				}
			}
		}
	}
	return where, nodes
}

// loss says what is accepted as lost by going on with a replica.
func loss(v catalog.Volume, r api.ForceReplica) string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	switch {
	case v.Foreign:
		say("The catalog was restored from a backup, which cannot tell whether the replica on %s is the newest: every write that it lacks is lost for good.", r.Node)
		if r.Epoch > 0 {
			say("Its pool last knew epoch %d.", r.Epoch)
		}
		switch {
		case len(r.DoubtedBy) > 0:
			say("The replica on %s has it on record as not in sync: it lacks writes, or was a copy that had not ended, unless it is that one that does.", strings.Join(r.DoubtedBy, " and "))
		case len(r.With) > 0:
			say("It was in sync with the replica on %s to the end.", strings.Join(r.With, " and "))
		case len(r.Missing) > 0:
			say("It has a replica on %s on record as in sync, which nobody has found: whether it was in sync with that to the end, or a copy from it that had not ended, only that could tell.",
				strings.Join(r.Missing, " and "))
		}
		if v.Share {
			say("The share has the files and names of the backup: what was made since is gone, and files may have bytes of others that took their place since: compare them.")
		}
	case r.InSync && r.Reverted:
		say("The replica on %s was put back to an earlier state: every write that was acknowledged since is lost for good.", r.Node)
	case r.InSync:
		say("The replica on %s is in sync by the catalog, but may lack writes that were acknowledged: they are lost for good.", r.Node)
	case r.Left.IsZero():
		say("The replica on %s was never in sync: what was not copied to it yet is lost for good, and reads as zeros or as it was long ago.", r.Node)
	default:
		say("Every write that was acknowledged after %s (epoch %d), when the replica on %s left the in-sync set, is lost for good.", r.Left.Format(time.RFC3339), r.LeftEpoch, r.Node)
		if r.Reverted {
			say("Its pool was put back to an earlier state: more is.")
		}
		if r.Incomplete {
			say("A resync to it was begun and did not end: its blocks are of different moments, as no disk ever was; expect damaged file systems.")
		}
	}
	if r.Marked > 0 {
		say("In %d MiB of it writes were under way, and may be there in part.", max(r.Marked>>20, 1))
	}
	if r.Size > v.Size && v.Foreign {
		say("It has %d bytes, more than the backup says, %d: the volume gets that size.", r.Size, v.Size)
	}
	if r.Size > 0 && r.Size < v.Size {
		say("It has %d of %d bytes: the volume had not grown there. What is behind reads as zeros.", r.Size, v.Size)
	}
	return strings.Join(out, " ")
}
