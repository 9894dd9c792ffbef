package appliance

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

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
	case f.Confirm == "":
		return out, nil
	case f.Confirm != v.Name:
		return out, api.Errorf(api.ErrInvalid, "", "confirm: %q is not the name of the volume", f.Confirm)
	}
	if err := n.reign.ForceVolume(ctx, reign.ForceVolume{Volume: v.ID, Node: to.ID, Lineage: lineage}); err != nil {
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
		out.Replicas = append(out.Replicas, api.ForceReplica{Node: nodeName(st, k.Place.Node), InSync: k.InSync, Reached: k.Fenced, Epoch: uint64(k.Epoch), Why: k.Why})
		if k.Place.Node == to.ID {
			out.Why = k.Why
		}
		if !k.Fenced {
			out.MayServe = append(out.MayServe, nodeName(st, k.Place.Node))
		}
	}
	out.Loss = fmt.Sprintf("Every write that was acknowledged since epoch %d and is not on %s is lost for good; its bytes are of different moments if a resync to it was under way.", v.LastServed, to.Name)
	if v.LastServed == 0 {
		out.Loss = fmt.Sprintf("Every write that was acknowledged and is not on %s is lost for good.", to.Name)
	}
	out.Loss += " The other replicas are overwritten with copies of it as soon as they are reached: save them before, if you may want them."
	out.Running = "Hosts that use the volume have cached what it had: stop them before, and have them check their file systems after."
	if len(out.MayServe) > 0 {
		out.Running += fmt.Sprintf(" %s cannot be reached from here, and may still be serving it to hosts that reach %s: stop what runs there, or cut it off.",
			strings.Join(out.MayServe, " and "), map[bool]string{true: "it", false: "them"}[len(out.MayServe) == 1])
	}
	return out
}
