package appliance

import (
	"testing"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestPromises: replicas count with their whole size, those in the trash and those to be deleted too.
func TestPromises(t *testing.T) {
	st := catalog.Empty()
	a, b := catalog.Place{Node: ids.NewNode(), Pool: ids.NewPool()}, catalog.Place{Node: ids.NewNode(), Pool: ids.NewPool()}
	v := catalog.Volume{ID: ids.NewVolume(), Size: 10, Replicas: []catalog.Place{a, b}}
	w := catalog.Volume{ID: ids.NewVolume(), Size: 5, Replicas: []catalog.Place{b}, Gone: []catalog.Place{a}}
	d := catalog.Volume{ID: ids.NewVolume(), Size: 100, Replicas: []catalog.Place{b}}
	st.Volumes = map[ids.Volume]catalog.Volume{v.ID: v, w.ID: w}
	st.Trash = map[ids.Volume]catalog.Trashed{d.ID: {Volume: d}}
	if got := promises(st); got[a.Pool] != (promise{15, 0}) || got[b.Pool] != (promise{115, 100}) {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct {
		promised, size int64
		ratio          float64
		much           bool
	}{{200, 100, 2, false}, {201, 100, 2, true}, {151, 101, 1.5, false}, {152, 101, 1.5, true}, {1 << 50, 1, 0, false}, {5, -1, 2, false}} {
		if got := tooMuch(c.promised, c.size, c.ratio); got != c.much {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
