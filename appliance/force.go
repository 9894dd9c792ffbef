package appliance

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
)

// ForceVolume implements api.Backend. Without the volume's name as a confirmation nothing is done, and the answer says what would be.
func (n *node) ForceVolume(ctx context.Context, request, name string, f api.Force) (api.Forced, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Forced{}, err
	}
	to, err := n.named(f.Replica)
	if err != nil {
		return api.Forced{}, err
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
	out := n.wouldForce(v, to, all)
	switch {
	case out.Why != "":
		return out, api.Errorf(api.ErrConflict, "pmsapp volume show "+v.Name+" tells where the replicas are", "the replica of %s on %s cannot be adopted: %s", v.Name, to.Name, out.Why)
	case incomplete(out) && !f.Incomplete:
		return out, api.Errorf(api.ErrConflict, "if there is no better one, --incomplete accepts it", "the replica of %s on %s is no copy of any one moment: %s", v.Name, to.Name, out.Loss)
	case f.Confirm == "":
		return out, nil
	case f.Confirm != v.Name:
		return out, api.Errorf(api.ErrInvalid, "", "confirm: %q is not the name of the volume", f.Confirm)
	}
	if err := n.reign.ForceVolume(ctx, reign.ForceVolume{Volume: v.ID, Node: to.ID, Lineage: lineage, Incomplete: f.Incomplete}); err != nil {
		return out, told(err)
	}
	n.awaitServed(ctx, v.ID)
	out.Done = true
	return out, nil
}

// wouldForce says what it means to go on with the replica on a node.
func (n *node) wouldForce(v catalog.Volume, to catalog.Node, all []reign.Candidate) api.Forced {
	st := n.cluster.State()
	out := api.Forced{Volume: v.Name, Replica: to.Name, Why: "there is none", Replicas: []api.ForceReplica{}, MayServe: []string{}}
	for _, k := range all {
		r := api.ForceReplica{Node: nodeName(st, k.Place.Node), InSync: k.InSync, Reached: k.Fenced, Epoch: uint64(k.Epoch),
			Left: k.Behind.Time, LeftEpoch: uint64(k.Behind.Epoch), Incomplete: !k.Complete(), Reverted: k.Reverted,
			Size: k.Size, Marked: int64(k.Active) * v.Region, Why: k.Why}
		out.Replicas = append(out.Replicas, r)
		if k.Place.Node == to.ID {
			out.Why, out.Loss = k.Why, loss(v, r)
		}
		if !k.Fenced {
			out.MayServe = append(out.MayServe, nodeName(st, k.Place.Node))
		}
	}
	out.Loss += " The other replicas are overwritten with copies of it as soon as they are reached: save them before, if you may want them."
	out.Running = "Hosts that use the volume have cached what it had: stop them before, and have them check their file systems after."
	if len(out.MayServe) > 0 {
		out.Running += fmt.Sprintf(" %s cannot be reached from here, and may still be serving it to hosts that reach %s: stop what runs there, or cut it off.",
			strings.Join(out.MayServe, " and "), map[bool]string{true: "it", false: "them"}[len(out.MayServe) == 1])
	}
	return out
}

// incomplete tells whether the named replica is no copy of any one moment.
func incomplete(f api.Forced) bool {
	return slices.ContainsFunc(f.Replicas, func(r api.ForceReplica) bool { return r.Node == f.Replica && r.Incomplete })
}

// loss says what is accepted as lost by going on with a replica.
func loss(v catalog.Volume, r api.ForceReplica) string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	switch {
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
	if r.Size > 0 && r.Size < v.Size {
		say("It has %d of %d bytes: the volume had not grown there. What is behind reads as zeros.", r.Size, v.Size)
	}
	return strings.Join(out, " ")
}
