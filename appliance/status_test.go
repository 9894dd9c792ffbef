package appliance

import (
	"slices"
	"strings"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/reign"
)

// TestWarningsOfVolumes: what stands still, or will, is a warning, and names whom it waits for, also while nobody has tried I/O.
func TestWarningsOfVolumes(t *testing.T) {
	sync := func(nodes ...string) (all []api.Replica) {
		for _, n := range nodes {
			all = append(all, api.Replica{Node: n, State: "in sync"})
		}
		return all
	}
	s := api.Status{Leader: "n1", Nodes: []api.Node{{Name: "n1", State: "alive"}, {Name: "n2", State: "dead"}, {Name: "n3", State: "dead"}}}
	for _, c := range []struct {
		v    api.Volume
		want string
	}{
		{api.Volume{Name: "v", State: string(reign.Serving), Served: true, Replicas: sync("n1", "n2")}, ""},
		{api.Volume{Name: "v", State: string(reign.Serving), Served: true, Replicas: sync("n2", "n3")}, "I/O will wait: no node with an in-sync replica answers (n2, n3)"},
		{api.Volume{Name: "v", State: string(reign.Serving), Served: true, Replicas: sync("n1"), Holding: "waiting for node n2"}, "holds its I/O: waiting for node n2"},
		{api.Volume{Name: "v", State: string(reign.Waits), Reason: "waits for node n2", Replicas: sync("n2")}, "not served: waits for node n2"},
		{api.Volume{Name: "v", State: string(reign.TakingOver), Reason: "waits a moment for node n2", Replicas: sync("n2")}, ""},
	} {
		s.Volumes = []api.Volume{c.v}
		var got []string
		for _, w := range warnings(&catalog.State{}, map[ids.Node]bool{}, s, reign.Status{}) {
			if strings.HasPrefix(w, "volume v") {
				got = append(got, w)
			}
		}
		if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(w string) bool { return strings.Contains(w, c.want) }) {
			t.Errorf("%+v: %q, not %q", c.v, got, c.want)
		}
	}
}

// TestFormerReplica: a replica of a volume that there is, where it should have none, is told by the volume's name.
func TestFormerReplica(t *testing.T) {
	v, n := ids.Volume{1}, ids.Node{2}
	st := &catalog.State{Volumes: map[ids.Volume]catalog.Volume{v: {Name: "vm1"}}, Nodes: map[ids.Node]catalog.Node{n: {Name: "n2"}}}
	got := strings.Join(warnings(st, nil, api.Status{Leader: "n1"}, reign.Status{Leftovers: []reign.LeftoverStatus{{Node: n, Volume: v}}}), "\n")
	if !strings.Contains(got, "former replica of volume vm1") || strings.Contains(got, "does not know") {
		t.Error(got)
	}
}

// TestPausedHasNoEnd: a resync that is paused has no time at which it ends.
func TestPausedHasNoEnd(t *testing.T) {
	place := catalog.Place{Node: ids.Node{2}, Pool: ids.Pool{3}}
	st := &catalog.State{}
	st.Resync.Paused = true
	r := describe(st, place, nil, reign.VolumeStatus{}, mirror.Status{Resync: &mirror.ResyncStatus{Node: place.Node, Done: 1, Total: 10, ETA: 2000}})
	if r.State != "resync" || r.Seconds >= 0 {
		t.Errorf("%+v", r)
	}
}

// TestNeeded: a node with the only in-sync replica is not helped by being stopped; the hint says what does help.
func TestNeeded(t *testing.T) {
	n, o := ids.Node{1}, ids.Node{2}
	m := catalog.Node{ID: n, Name: "n1"}
	vol := func(nodes ...ids.Node) catalog.Volume {
		v := catalog.Volume{ID: ids.Volume{1}, Name: "v"}
		for _, x := range nodes {
			v.InSync = append(v.InSync, catalog.Place{Node: x})
		}
		return v
	}
	served := func(v catalog.Volume) *catalog.State {
		return &catalog.State{Volumes: map[ids.Volume]catalog.Volume{v.ID: v}}
	}
	for _, c := range []struct {
		st   *catalog.State
		want string
	}{
		{served(vol(n, o)), "stop pmsapp there first"},
		{served(vol(n)), "pmsapp volume delete v --purge"},
		{&catalog.State{Trash: map[ids.Volume]catalog.Trashed{{1}: {Volume: vol(n)}}}, "pmsapp volume purge v"},
	} {
		if got := neededHint(c.st, m); !strings.Contains(got, c.want) {
			t.Errorf("%q, not %q", got, c.want)
		}
	}
}

// TestMapRefused: what stands in the way of a map is named, with the command that ends it.
func TestMapRefused(t *testing.T) {
	v, seven := catalog.Volume{ID: ids.Volume{1}, Name: "v"}, uint16(7)
	hosts := map[string]catalog.Host{"h": {Name: "h"}}
	for _, c := range []struct {
		st    catalog.State
		share bool
		w     api.NewMap
		want  string
	}{
		{catalog.State{Hosts: hosts}, false, api.NewMap{Host: "h"}, ""},
		{catalog.State{Hosts: hosts}, true, api.NewMap{Host: "h"}, "pmsapp share export v"},
		{catalog.State{}, false, api.NewMap{Host: "h"}, "pmsapp host add"},
		{catalog.State{Hosts: hosts, Exports: map[ids.Volume]catalog.Export{v.ID: {}}}, false, api.NewMap{Host: "h"}, "pmsapp lun unexport v"},
		{catalog.State{Hosts: hosts, Maps: map[ids.Volume][]catalog.Mapping{v.ID: {{Host: "h", LUN: 1}}}}, false, api.NewMap{Host: "h", LUN: &seven}, "pmsapp lun unmap v h"},
	} {
		v.Share = c.share
		err := mayMap(&c.st, v, c.w)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, not %q", c.w, err, c.want)
		}
	}
}
