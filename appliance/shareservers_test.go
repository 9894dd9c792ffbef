package appliance

import (
	"slices"
	"strings"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
)

func TestShareServers(t *testing.T) {
	a := catalog.Node{Name: "a", NFS: "192.0.2.1:2049", Portmap: "192.0.2.1:111"}
	b := catalog.Node{Name: "b", NFS: "192.0.2.2:2049", Portmap: "192.0.2.2:111"}
	other := catalog.Node{Name: "c", NFS: "192.0.2.3:12049"}
	none, witness := catalog.Node{Name: "d"}, catalog.Node{Name: "w", Witness: true}
	const virtual = "192.0.2.9:3260"
	for _, c := range []struct {
		nodes   []catalog.Node
		virtual string
		servers []api.ShareServer
		warning string
	}{
		{[]catalog.Node{a, b, witness}, virtual, []api.ShareServer{{Host: "192.0.2.9", Port: 2049, Portmap: true}}, ""},
		{[]catalog.Node{a, b}, "", []api.ShareServer{{Host: "192.0.2.1", Port: 2049, Portmap: true}, {Host: "192.0.2.2", Port: 2049, Portmap: true}}, ""},
		{[]catalog.Node{a, other}, virtual, []api.ShareServer{{Host: "192.0.2.9", Port: 2049, Portmap: true}, {Host: "192.0.2.9", Port: 12049}}, "different ports"},
		{[]catalog.Node{a, other}, "", []api.ShareServer{{Host: "192.0.2.1", Port: 2049, Portmap: true}, {Host: "192.0.2.3", Port: 12049}}, ""},
		{[]catalog.Node{a, none}, virtual, []api.ShareServer{{Host: "192.0.2.9", Port: 2049, Portmap: true}}, "while d leads"},
		{[]catalog.Node{none, witness}, virtual, []api.ShareServer{}, "no node listens for NFS"},
	} {
		if got := shareServers(c.nodes, c.virtual); !slices.Equal(got, c.servers) {
			t.Errorf("%v: %v", c.nodes, got)
		}
		got := strings.Join(shareWarnings(c.nodes, c.virtual != ""), "; ")
		if (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
			t.Errorf("%v: %q", c.nodes, got)
		}
	}
	two := []api.ShareServer{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}}
	if len(lonelyMounts(two, false)) != 1 || len(lonelyMounts(two, true)) != 0 || len(lonelyMounts(two[:1], false)) != 0 {
		t.Error("mounts that end with their node's leadership are not told, or others are")
	}
	s := api.ShareServer{Host: "192.0.2.9", Port: 12049}
	if got := s.MountCommand("/s"); got != "mount -t nfs -o vers=3,proto=tcp,port=12049,mountproto=tcp,mountport=12049,nolock 192.0.2.9:/s DIRECTORY" {
		t.Error(got)
	}
	if got := s.URL("/s"); got != "nfs://192.0.2.9/s?nfsport=12049&mountport=12049" {
		t.Error(got)
	}
	s = api.ShareServer{Host: "2001:db8::9", Port: 2049, Portmap: true}
	if got := s.MountCommand("/s") + " " + s.URL("/s"); got != "mount -t nfs -o vers=3 [2001:db8::9]:/s DIRECTORY nfs://[2001:db8::9]/s" {
		t.Error(got)
	}
}
