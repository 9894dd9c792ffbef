package appliance

import (
	"slices"
	"testing"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// TestCompareSeen: every way in which a portal can show a host something else than there is.
func TestCompareSeen(t *testing.T) {
	v := ids.NewVolume()
	st := &catalog.State{Volumes: map[ids.Volume]catalog.Volume{v: {ID: v, Name: "v"}}}
	is := scsi.NewLU(v).Identity()
	want := map[ids.Volume]scsi.Identity{v: is}
	groups := map[uint16]uint16{3: 3, 4: 4}
	good := seen{is, 3, groups}
	with := func(f func(*seen)) []seen {
		s := good
		f(&s)
		return []seen{s}
	}
	for name, c := range map[string]struct {
		all  []seen
		want []string
	}{
		"the same":       {[]seen{good}, nil},
		"nothing":        {nil, []string{"volume v: no LUN"}},
		"another serial": {with(func(s *seen) { s.Volume, s.Serial = ids.Volume{}, "x" }), []string{`a LUN with serial "x" that is no volume's`, "volume v: no LUN"}},
		"another NAA": {with(func(s *seen) { s.NAA = []byte{1} }),
			[]string{`volume v: another LU: PMSAPP VDISK, serial "` + is.Serial + `", naa.01, "` + is.T10 + `"`}},
		"a port in no group": {with(func(s *seen) { s.port = 9 }), []string{"volume v: its port 9 is in no target port group"}},
		"other groups":       {[]seen{good, {is, 3, map[uint16]uint16{3: 3}}}, []string{"volume v: other target port groups than the other LUNs have"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := compareSeen(st, want, c.all); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// FuzzPortGroups reads what a portal may answer.
func FuzzPortGroups(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3})
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if all := portGroups(b); len(all) > len(b)/4 {
			t.Errorf("%d ports in %d bytes", len(all), len(b))
		}
	})
}
