package front

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func three() []target.Portal {
	p := func(s string, g uint16) target.Portal {
		return target.Portal{Addr: netip.MustParseAddrPort(s), Group: g}
	}
	return []target.Portal{p("192.0.2.10:3260", VirtualGroup), p("192.0.2.1:3260", 3), p("192.0.2.2:3260", 4), p("0.0.0.0:3261", 5)}
}

// TestPortals: a host is told of the portals that it may use and of no others.
func TestPortals(t *testing.T) {
	found := netip.MustParseAddr("192.0.2.77")
	virtual, nodes := []string{"192.0.2.10:3260"}, []string{"192.0.2.1:3260", "192.0.2.2:3260", "192.0.2.77:3261"}
	for _, c := range []struct {
		paths Paths
		all   []target.Portal
		want  []string
	}{
		{"", three(), virtual}, {PathsVirtual, three(), virtual}, {PathsNodes, three(), nodes}, {PathsRedirect, three(), nodes},
		{"", three()[1:], nodes}, {PathsVirtual, three()[1:], nodes}, {PathsNodes, three()[:1], nil},
	} {
		var got []string
		for _, p := range c.paths.portals(c.all, found) {
			got = append(got, p.Addr.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q of %d portals: %v, want %v", c.paths, len(c.all), got, c.want)
		}
	}
	if all := three(); all[3].Addr.Addr() != netip.IPv4Unspecified() {
		t.Error("the list itself was changed")
	}
}

// TestRedirects: a login is sent to the portal of who serves, if somebody is known to; never from the virtual address.
func TestRedirects(t *testing.T) {
	at := func(portal string, group uint16) target.Login {
		return target.Login{Portal: netip.MustParseAddrPort(portal), Group: group}
	}
	own := at("192.0.2.1:3260", 3)
	for _, c := range []struct {
		paths  Paths
		l      target.Login
		access uint16
		want   string
	}{
		{PathsRedirect, own, 4, "192.0.2.2:3260"},
		{PathsRedirect, own, 3, ""},                                 // it is this node
		{PathsRedirect, own, 0, ""},                                 // nobody is
		{PathsRedirect, own, 5, ""},                                 // who knows where that is
		{PathsRedirect, own, 6, ""},                                 // a node that has left
		{PathsRedirect, at("192.0.2.10:3260", VirtualGroup), 4, ""}, // whoever has the address leads, or soon does not have it
		{PathsNodes, own, 4, ""}, {PathsVirtual, own, 4, ""}, {"", own, 4, ""},
	} {
		to, ok := c.paths.redirects(three(), c.l, 3, c.access)
		if ok != (c.want != "") || ok && to.String() != c.want {
			t.Errorf("%q at %s, group %d serves: %v, %v, want %q", c.paths, c.l.Portal, c.access, to, ok, c.want)
		}
	}
}

// TestRedirected: the whole way through Hosts, for volumes that are exported and for those that are mapped: where another node
// serves, logins go there, and sessions that were let in while nobody did are ended; where this one serves nothing of it happens.
func TestRedirected(t *testing.T) {
	v := ids.NewVolume()
	for name, mapped := range map[string]bool{"exported": false, "mapped": true} {
		t.Run(name, func(t *testing.T) {
			certain := true
			h := newHosts(&certain)
			h.cfg.Portals = three
			var cause error
			l := login("vol", "iqn.a", "", &cause)
			l.Group = 3
			if mapped {
				l.Target = CommonName(h.cfg.Cluster)
			}
			apply := func(access uint16) {
				t.Helper()
				var err error
				if mapped {
					err = h.ApplyMaps([]Host{{Name: "a", IQNs: []string{"iqn.a"}, LUNs: []HostLUN{{v, 5, false}}, Paths: PathsRedirect}},
						[]Offered{{Volume: v, Name: "vol", Access: access}})
				} else {
					err = h.Apply([]Export{{Volume: v, Name: "vol", Geometry: geometry, LUN: 1, Access: access, Paths: PathsRedirect}})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			open := func(l target.Login, to string) (n target.Nexus) {
				t.Helper()
				o, err := h.Open(l)
				var r *target.Refusal
				switch {
				case to == "" && err != nil:
					t.Fatal(err)
				case to != "" && (!errors.As(err, &r) || r.Status != iscsi.LoginMovedTemporarily || len(r.Keys) != 1 || r.Keys[0].Value != to):
					t.Fatalf("%v, want to be sent to %s", err, to)
				case to != "" && h.Refused(l, err):
					t.Error("an event for it")
				}
				return o.Nexus
			}
			apply(0)
			n := open(l, "") // nobody serves: it waits here
			apply(4)
			if !errors.Is(cause, target.ErrMoved) {
				t.Fatalf("the session was dropped for %v", cause)
			}
			n.End(cause)
			open(l, "192.0.2.2:3260")
			at := l
			at.Group = VirtualGroup
			open(at, "").End(nil)
			cause = nil
			h.Serve(v, disk{}, nil) // it begins to serve before the catalog has it
			n = open(l, "")
			apply(4)
			apply(3)
			if cause != nil {
				t.Fatalf("dropped where the volume is served: %v", cause)
			}
			n.End(nil)
		})
	}
}
