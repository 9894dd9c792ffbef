package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/replication/reign"
)

// WithdrawVolume implements api.Backend. Without the volume's name as a confirmation nothing is done, and the answer says what would be.
func (n *node) WithdrawVolume(ctx context.Context, request, name string, w api.Withdraw) (api.Withdrawn, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Withdrawn{}, err
	}
	if n.applied(request) { // its answer was lost
		return api.Withdrawn{Volume: v.Name, Done: true, Exports: []string{}}, n.service.applyExports()
	}
	st := n.cluster.State()
	out := n.wouldWithdraw(st, v)
	switch state, reason := n.stateOf(v); {
	case len(out.Exports) == 0:
		return out, api.Errorf(api.ErrNotFound, "", "%s is not exported", v.Name)
	case v.LastServed == st.Epoch:
		return out, api.Errorf(api.ErrConflict, "pmsapp lun unexport, lun unmap or share unexport ends an export of it", "%s was served by this leader", v.Name)
	case state != reign.Waits && state != reign.NeedsForce:
		return out, api.Errorf(api.ErrConflict, "repeat the command in a few seconds", "%s: %s", v.Name, reason)
	case w.Confirm == "":
		return out, nil
	case w.Confirm != v.Name:
		return out, api.Errorf(api.ErrInvalid, "", "confirm: %q is not the name of the volume", w.Confirm)
	}
	undo, err := n.endClients(ctx, st, v)
	if err != nil {
		return out, err
	}
	defer undo()
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.Withdraw{Epoch: st.Epoch, Volume: v.ID}}); err != nil {
		return out, err
	}
	out.Done = true
	// The target goes before logins are allowed again.
	return out, n.service.applyExports()
}

// stateOf is what the leader knows of a volume.
func (n *node) stateOf(v catalog.Volume) (reign.State, string) {
	for _, s := range n.reign.Status().Volumes {
		if s.Volume == v.ID {
			return s.State, s.Reason
		}
	}
	return reign.NotLeading, "it is not known here yet"
}

// wouldWithdraw says what it means to end a volume's exports while it is not served.
func (n *node) wouldWithdraw(st *catalog.State, v catalog.Volume) api.Withdrawn {
	out := api.Withdrawn{Volume: v.Name, Exports: []string{}, MayServe: []string{}}
	if _, ok := st.Exports[v.ID]; ok {
		out.Exports = append(out.Exports, "the LUN of its own target")
	}
	for _, m := range st.Maps[v.ID] {
		out.Exports = append(out.Exports, fmt.Sprintf("LUN %d of host %s", m.LUN, m.Host))
	}
	if _, ok := st.Shares[v.ID]; ok {
		out.Exports = append(out.Exports, "the share")
	}
	_, out.MayServe = n.unseen(st)
	out.Running = "Hosts lose it for good, with what they have reserved: what they had not written yet they never will."
	if len(st.Maps[v.ID]) > 0 {
		out.Running += " Their sessions end for a moment, those with their other LUNs too."
	}
	if len(out.MayServe) > 0 {
		out.Running += fmt.Sprintf(" %s cannot be reached from here, and may still be serving it to hosts that reach %s: stop what runs there, or cut it off.",
			strings.Join(out.MayServe, " and "), map[bool]string{true: "it", false: "them"}[len(out.MayServe) == 1])
	}
	return out
}

// endClients ends what hosts have under way with a volume, which nobody answers; undo allows them in again.
func (n *node) endClients(ctx context.Context, st *catalog.State, v catalog.Volume) (undo func(), err error) {
	var undos []func()
	all := func() {
		for _, f := range slices.Backward(undos) {
			f()
		}
	}
	defer func() {
		if err != nil {
			all()
		}
	}()
	if _, ok := st.Exports[v.ID]; ok {
		f, err := n.endSessions(ctx, v)
		if err != nil {
			return nil, err
		}
		undos = append(undos, f)
	}
	for _, m := range st.Maps[v.ID] {
		hctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		f, err := n.hosts.CloseHost(hctx, m.Host)
		cancel()
		if err != nil {
			return nil, api.Errorf(api.ErrConflict, "repeat the command in a few seconds", "%s: %v", m.Host, err)
		}
		undos = append(undos, f)
	}
	if _, ok := st.Shares[v.ID]; ok {
		n.ruling.Lock() // one restriction of a share at a time
		undos = append(undos, n.ruling.Unlock, n.door.shares.Restrict(v.ID, nil))
		if err := n.drainShare(ctx, v); err != nil {
			return nil, err
		}
	}
	return all, nil
}
