package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// TestManyLUNs: a host with eight LUNs of one size finds the same ones, each with its own identity in every field, at the portal of every node and
// at the virtual address, whether they are served there or not.
func TestManyLUNs(t *testing.T) {
	const count = 8
	certain := true
	host := Host{Name: "a", IQNs: []string{"iqn.a"}}
	var offers []Offered
	for i := range uint16(count) {
		v := ids.NewVolume()
		host.LUNs = append(host.LUNs, HostLUN{Volume: v, LUN: 1 + i})
		offers = append(offers, Offered{Volume: v, Name: fmt.Sprint("v", i), Geometry: geometry})
	}
	cluster := ids.NewCluster()
	seen := map[string]string{} // what was answered to a question at a LUN, at the first portal
	for node, group := range []uint16{3, 4, VirtualGroup, 5} {
		h := newHosts(&certain)
		h.cfg.Group, h.cfg.Cluster = group, cluster
		if err := h.ApplyMaps([]Host{host}, offers); err != nil {
			t.Fatal(err)
		}
		if node > 0 { // the first stands by
			for _, o := range offers {
				h.Serve(o.Volume, disk{}, nil)
			}
		}
		var cause error
		l := login("", "iqn.a", "", &cause)
		l.Target, l.Group = CommonName(cluster), group
		o, err := h.Open(l)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(lun uint16, cdb ...byte) []byte {
			t.Helper()
			task := &target.Task{LUN: target.FlatLUN(lun), CDB: append(cdb, make([]byte, 16-len(cdb))...), Read: true, ExpIn: 512, Done: func(*target.Task) {}}
			o.Nexus.Accept(task)
			o.Nexus.Execute(task)
			if task.Status != 0 {
				t.Fatalf("portal %d, LUN %d, %x: status %x", group, lun, cdb, task.Status)
			}
			return bytes.Clone(task.DataIn)
		}
		luns := ask(0, 0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0)
		want := make([]byte, 8+8*(count+1)) // with LUN 0
		want[3] = byte(len(want) - 8)
		for i := range count + 1 {
			want[8+8*i+1] = byte(i)
		}
		if !bytes.Equal(luns, want) {
			t.Errorf("portal %d: REPORT LUNS %x", group, luns)
		}
		if b := ask(1, 0xa0, 0, 1, 0, 0, 0, 0, 0, 2, 0); len(b) != 8 || b[3] != 0 { // well-known logical units
			t.Errorf("portal %d: REPORT LUNS %x", group, b)
		}
		fields := map[string]uint16{}
		for _, m := range host.LUNs {
			serial := ask(m.LUN, 0x12, 1, 0x80, 2, 0)[4:]
			page := ask(m.LUN, 0x12, 1, 0x83, 2, 0)[4:]
			for name, field := range map[string][]byte{"serial": serial, "the beginning of the serial": serial[:16],
				"NAA": page[4:12], "T10": page[16 : 16+int(page[15])]} {
				at := fmt.Sprintf("%s of LUN %d", name, m.LUN)
				if was, ok := seen[at]; ok && was != string(field) {
					t.Errorf("portal %d: %s is %x, and %x elsewhere", group, at, field, was)
				}
				seen[at] = string(field)
				if other, twice := fields[name+string(field)]; twice {
					t.Errorf("portal %d: %s is that of LUN %d", group, at, other)
				}
				fields[name+string(field)] = m.LUN
			}
		}
		o.Nexus.End(nil)
	}
}

// TestMaps: who is let in to the mapped LUNs, and what ends sessions.
func TestMaps(t *testing.T) {
	certain := false
	h := newHosts(&certain)
	now := time.Unix(1000, 0)
	h.cfg.Now = func() time.Time { return now }
	v, w := ids.NewVolume(), ids.NewVolume()
	var cause error
	to := func(initiator, user string) target.Login {
		l := login("", initiator, user, &cause)
		l.Target = CommonName(h.cfg.Cluster)
		return l
	}
	try := func(l target.Login, want error) target.Nexus {
		t.Helper()
		_, err := h.Credentials(l)
		var o target.Opened
		if err == nil {
			o, err = h.Open(l)
		}
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		return o.Nexus
	}
	apply := func(hosts []Host, volumes ...Offered) {
		t.Helper()
		if err := h.ApplyMaps(hosts, volumes); err != nil {
			t.Fatal(err)
		}
	}
	try(to("iqn.a", ""), target.ErrUnavailable) // this node may not know it yet
	certain = true
	try(to("iqn.a", ""), errUnknownHost)
	a := Host{Name: "a", IQNs: []string{"iqn.a"}, CHAP: iscsi.Credentials{Name: "u", Secret: []byte("0123456789ab")}}
	apply([]Host{a})
	try(to("iqn.a", "u"), errNoLUN)
	if !h.Known() {
		t.Error("a host without LUNs needs a device")
	}
	a.LUNs = []HostLUN{{v, 5, false}}
	apply([]Host{a}, Offered{Volume: v, Name: "v"})
	if h.Known() {
		t.Error("nobody serves v")
	}
	try(to("iqn.a", ""), target.ErrForbidden)
	n := try(to("IQN.A", "u"), nil)
	if n.Unit(target.FlatLUN(5)) == nil || n.Unit(target.FlatLUN(6)) != nil {
		t.Error("not the LUNs of the map")
	}
	if d := h.Discover(to("iqn.a", "")); len(d) != 1 || d[0].Name != CommonName(h.cfg.Cluster) {
		t.Error(d)
	}
	if d := h.Discover(to("iqn.b", "")); len(d) != 0 {
		t.Error(d)
	}
	// One more LUN leaves the session; the same again changes nothing.
	a.LUNs = append(a.LUNs, HostLUN{w, 6, true})
	for range 2 {
		apply([]Host{a}, Offered{Volume: v, Name: "v"}, Offered{Volume: w, Name: "w", Reserved: reserve.State{Seq: 1}, Index: 9})
	}
	if cause != nil || n.Unit(target.FlatLUN(6)) == nil {
		t.Fatal(cause)
	}
	h.Serve(v, disk{}, nil)
	h.Serve(w, disk{}, nil)
	if !h.Known() || len(h.Identities()) != 2 {
		t.Error("what is served is not known")
	}
	h.Standby(w)
	if !errors.Is(cause, ErrNotServed) || !errors.Is(cause, target.ErrMoved) {
		t.Fatal(cause)
	}
	// A map that ends: no login until it has.
	cause = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.CloseHost(ctx, "a"); !errors.Is(err, context.Canceled) || !errors.Is(cause, ErrUnexported) {
		t.Fatal(err, cause)
	}
	n.End(cause)
	undo, err := h.CloseHost(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	try(to("iqn.a", "u"), target.ErrUnavailable)
	undo()
	cause = nil
	n = try(to("iqn.a", "u"), nil)
	// Other credentials: it has to log in again.
	a.CHAP.Secret = []byte("ba9876543210")
	apply([]Host{a}, Offered{Volume: v, Name: "v"})
	if !errors.Is(cause, ErrUnexported) {
		t.Fatal(cause)
	}
	n.End(cause)
	// Logins that fail: the address waits, whatever name it claims.
	l := to("iqn.a", "")
	for range freeFailures + 1 {
		h.Refused(l, &target.Refusal{Status: iscsi.LoginAuthFailed})
	}
	try(to("iqn.a", "u"), errTooMany)
	now = now.Add(2 * time.Second)
	try(to("iqn.a", "u"), nil)
	apply(nil)
	try(to("iqn.a", "u"), errUnknownHost)
}
