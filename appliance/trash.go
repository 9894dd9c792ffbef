package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/reign"
)

// Volumes that were deleted (delete protection): the trash of the catalog.

// DeleteVolume implements api.Backend.
func (n *node) DeleteVolume(ctx context.Context, request, name string, purge bool) error {
	v, err := n.volumeNamed(name)
	if err != nil {
		return err
	}
	st := n.cluster.State()
	if _, exported := st.Exports[v.ID]; exported {
		return api.Errorf(api.ErrConflict, cmp.Or(withdrawHint(st, v), "pmsapp lun unexport "+v.Name+" first"), "%s is exported: hosts may be using it", v.Name)
	}
	if maps := st.Maps[v.ID]; len(maps) > 0 {
		return api.Errorf(api.ErrConflict, cmp.Or(withdrawHint(st, v), "pmsapp lun unmap "+v.Name+" "+maps[0].Host+" first"), "%s is mapped to hosts", v.Name)
	}
	if _, shared := st.Shares[v.ID]; shared {
		return api.Errorf(api.ErrConflict, cmp.Or(withdrawHint(st, v), "pmsapp share unexport "+v.Name+" first"), "%s is exported: clients may be using it", v.Name)
	}
	if n.volumeTunables().TrashKeep == 0 && !purge {
		return api.Errorf(api.ErrConflict, "say --purge (API: ?purge=1) to delete it for good", "volumes.trash_keep is 0: nothing that is deleted is kept")
	}
	if err := n.reign.DeleteVolume(ctx, v.ID); err != nil {
		return told(err)
	}
	if t, kept := n.cluster.State().Trash[v.ID]; kept && purge {
		return n.purge(ctx, request, t, false)
	}
	return nil
}

// withdrawHint says how the exports of a volume end that is not served; empty if it is.
func withdrawHint(st *catalog.State, v catalog.Volume) string {
	if v.LastServed == st.Epoch {
		return ""
	}
	return fmt.Sprintf("it is not served; if what it waits for never comes back: pmsapp volume withdraw %s first", v.Name)
}

// trashed finds a deleted volume by its name or id; of several with one name none.
func (n *node) trashed(name string) (catalog.Trashed, error) {
	st := n.cluster.State()
	if id, err := ids.Parse(name); err == nil {
		if t, ok := st.Trash[ids.Volume(id)]; ok {
			return t, nil
		}
	}
	switch all := st.TrashNamed(name); len(all) {
	case 0:
		return catalog.Trashed{}, api.Errorf(api.ErrNotFound, "pmsapp volume list --trash shows what is there", "there is no volume %q in the trash", name)
	case 1:
		return all[0], nil
	default:
		var which []string
		for _, t := range all {
			which = append(which, fmt.Sprintf("%s (deleted %s)", t.Volume.ID, t.Time.UTC().Format(time.DateTime)))
		}
		return catalog.Trashed{}, api.Errorf(api.ErrConflict, "name it by its id", "%d volumes in the trash were named %s: %s", len(all), name, strings.Join(which, ", "))
	}
}

// RestoreVolume implements api.Backend.
func (n *node) RestoreVolume(ctx context.Context, request, name string, r api.Restore) (api.Volume, error) {
	if r.As != "" {
		if err := config.CheckName(r.As); err != nil {
			return api.Volume{}, api.Errorf(api.ErrInvalid, "", "as: %v", err)
		}
	}
	t, err := n.trashed(name)
	if err != nil {
		if v, verr := n.volumeNamed(cmp.Or(r.As, name)); verr == nil && n.applied(request) { // its answer was lost
			return n.show(v.ID)
		}
		return api.Volume{}, err
	}
	if !r.OverSubscribe { // it is counted already
		if err := n.mayPromise(ctx, t.Volume.Replicas, 0); err != nil {
			return api.Volume{}, err
		}
	}
	err = n.propose(ctx, catalog.Command{Request: request, Body: catalog.RestoreVolume{Volume: t.Volume.ID, Since: t.Since, Name: r.As,
		Limits: n.limitsNow(ctx, r.OverSubscribe)}})
	if errors.Is(err, catalog.ErrPromised) {
		return api.Volume{}, n.toldPlaces(err)
	}
	if errors.Is(err, api.ErrConflict) {
		return api.Volume{}, api.Errorf(api.ErrConflict, "give it another name: pmsapp volume restore "+name+" --as NAME", "%v", err)
	}
	if err != nil {
		return api.Volume{}, err
	}
	v := n.cluster.State().Volumes[t.Volume.ID]
	n.events.add(catalog.Event{Kind: string(reign.VolumeRestored), Volume: t.Volume.ID, Text: fmt.Sprintf("volume %s was restored from the trash", v.Name)})
	n.awaitServed(ctx, t.Volume.ID)
	return n.show(t.Volume.ID)
}

// awaitServed waits a moment for a volume that comes to be served: an admin who goes on with it then finds it so.
func (n *node) awaitServed(ctx context.Context, id ids.Volume) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		for _, v := range n.reign.Status().Volumes {
			if v.Volume == id && v.State == reign.Serving {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PurgeVolume implements api.Backend.
func (n *node) PurgeVolume(ctx context.Context, request, name string) error {
	t, err := n.trashed(name)
	switch {
	case err != nil && n.applied(request): // its answer was lost
		return nil
	case err != nil:
		return err
	}
	return n.purge(ctx, request, t, false)
}

// applied tells whether a request's command has had its effect already.
func (n *node) applied(request string) bool {
	return slices.ContainsFunc(n.cluster.State().Requests, func(r catalog.Request) bool { return r.ID == request })
}

func (n *node) purge(ctx context.Context, request string, t catalog.Trashed, expired bool) error {
	err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.PurgeVolume{Volume: t.Volume.ID, Since: t.Since, Expired: expired}})
	if err != nil {
		return err
	}
	why := "by command"
	if expired {
		why = "its time in the trash is over"
	}
	n.events.add(catalog.Event{Kind: string(reign.VolumePurged), Volume: t.Volume.ID, Text: fmt.Sprintf("volume %s and its data are deleted for good: %s", t.Volume.Name, why)})
	return nil
}

// Trash implements api.Backend.
func (n *node) Trash(context.Context) ([]api.Trashed, error) {
	st := n.cluster.State()
	out := []api.Trashed{}
	for _, t := range st.Trash {
		a := api.Trashed{ID: t.Volume.ID.String(), Name: t.Volume.Name, Size: t.Volume.Size, Deleted: t.Time, Left: secondsLeft(t, st), Replicas: []api.Replica{}}
		for _, p := range t.Volume.Replicas {
			r := describe(st, p, t.Volume.InSync, reign.VolumeStatus{}, mirror.Status{})
			a.Replicas = append(a.Replicas, r)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b api.Trashed) int {
		if c := a.Deleted.Compare(b.Deleted); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// secondsLeft is for how long a volume stays in the trash; -1: until it is purged by command.
func secondsLeft(t catalog.Trashed, st *catalog.State) int64 {
	if t.Until == catalog.Forever {
		return -1
	}
	return max(t.Until-st.Counted, 0)
}

// emptyTrash counts time for the trash while this node leads, and purges what has expired.
func (n *node) emptyTrash(ctx context.Context) {
	begun := time.Now()
	var count trashCount
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st := n.cluster.State()
		for _, b := range count.step(time.Since(begun), n.cluster.IsLeader() && st.Leader == n.cluster.Self(), st) {
			pctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			var err error
			if p, ok := b.(catalog.PurgeVolume); ok {
				err = n.purge(pctx, "", st.Trash[p.Volume], true)
			} else {
				_, err = n.cluster.Propose(pctx, catalog.Command{Body: b})
			}
			cancel()
			if err != nil {
				n.log.Debug("the trash was not counted or emptied; it is tried again", "err", err)
				break
			}
		}
	}
}
