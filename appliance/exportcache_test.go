package appliance

import (
	"net/netip"
	"testing"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestExportCache: an export is another one exactly when its name or its rules have changed.
func TestExportCache(t *testing.T) {
	v := ids.Volume{1}
	rules := []catalog.ShareRule{{Clients: netip.MustParsePrefix("192.0.2.0/24"), Squash: catalog.SquashAll}}
	st := &catalog.State{Volumes: map[ids.Volume]catalog.Volume{v: {ID: v, Name: "s"}}, Shares: map[ids.Volume]catalog.ShareExport{v: {Volume: v, Rules: rules}}}
	c := newExportCache(func() *catalog.State { return st })
	a := c.one(v)
	if a == nil || a.Path != "/s" || len(a.Rules) != 1 || c.one(v) != a || len(c.every()) != 1 || c.every()[0] != a {
		t.Fatalf("%+v", a)
	}
	next := *st
	next.Shares = map[ids.Volume]catalog.ShareExport{v: {Volume: v, Rules: append(rules[:1:1], catalog.ShareRule{Clients: netip.MustParsePrefix("198.51.100.0/24")})}}
	st = &next
	b := c.one(v)
	if b == a || len(b.Rules) != 2 || len(a.Rules) != 1 {
		t.Fatalf("%+v", b)
	}
	renamed := next
	renamed.Volumes = map[ids.Volume]catalog.Volume{v: {ID: v, Name: "t"}}
	st = &renamed
	if e := c.one(v); e.Path != "/t" {
		t.Fatalf("%+v", e)
	}
	gone := next
	gone.Shares = nil
	st = &gone
	if c.one(v) != nil || len(c.every()) != 0 || len(c.all) != 0 || c.one(ids.Volume{2}) != nil {
		t.Fatal("an export that is none")
	}
}
