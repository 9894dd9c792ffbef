package daemons

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// TestHosts: hosts see their LUNs under their numbers and nothing else; who is not known, or does not prove who it is, is refused,
// and an event says so.
func TestHosts(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	client := c.Client()
	for _, v := range []string{"a", "b"} {
		if _, err := client.CreateVolume(t.Context(), api.NewVolume{Name: v, Size: 64 << 20, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
	}
	const one, two = "iqn.2026-11.example:one", "iqn.2026-11.example:two"
	if _, err := client.AddHost(t.Context(), api.NewHost{Name: "one", IQNs: []string{one}, CHAPUser: "one", CHAPSecret: "secret-of-host-one",
		MutualUser: "pms", MutualSecret: "secret-of-target"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AddHost(t.Context(), api.NewHost{Name: "two", IQNs: []string{two}}); err != nil {
		t.Fatal(err)
	}
	number := uint16(300)
	mapped := func(m api.NewMap) api.Map {
		t.Helper()
		out, err := client.MapLUN(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	target := mapped(api.NewMap{Volume: "a", Host: "one"}).Target
	mapped(api.NewMap{Volume: "b", Host: "one", LUN: &number})
	mapped(api.NewMap{Volume: "a", Host: "two", ReadOnly: true})
	own, peer := iscsi.Credentials{Name: "one", Secret: []byte("secret-of-host-one")}, iscsi.Credentials{Name: "pms", Secret: []byte("secret-of-target")}
	config := func(name string) initiator.Config {
		return initiator.Config{Portal: c.Virtual, Initiator: name, Target: target, Log: slog.New(slog.DiscardHandler)}
	}
	found := func(name string) (targets []string) {
		t.Helper()
		cfg := config(name)
		cfg.Target = ""
		all, err := initiator.Discover(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			targets = append(targets, f.Name)
		}
		return targets
	}
	if got := found(one); !slices.Equal(got, []string{target}) {
		t.Errorf("host one discovers %v", got)
	}
	if got := found("iqn.2026-11.example:nobody"); len(got) != 0 {
		t.Errorf("nobody discovers %v", got)
	}
	login := func(cfg initiator.Config) (*initiator.Session, error) {
		s, err := initiator.Dial(t.Context(), cfg)
		if err == nil {
			t.Cleanup(func() { s.Close(); <-s.Done() })
		}
		return s, err
	}
	refused := func(what string, status iscsi.LoginStatus, cfg initiator.Config) {
		t.Helper()
		_, err := login(cfg)
		var e *initiator.RefusedError
		if !errors.As(err, &e) || e.Status != status {
			t.Errorf("%s: %v, want %s", what, err, status)
		}
	}
	refused("who is not known", iscsi.LoginForbidden, config("iqn.2026-11.example:nobody"))
	cfg := config(one)
	refused("without CHAP", iscsi.LoginAuthFailed, cfg)
	cfg.Own = iscsi.Credentials{Name: "one", Secret: []byte("secret-of-host-two")}
	for range 3 {
		refused("a wrong secret", iscsi.LoginAuthFailed, cfg)
	}
	cfg.Own, cfg.Peer = own, peer
	refused("the right one after four wrong ones", iscsi.LoginUnavailable, cfg)
	var s *initiator.Session
	if err := local.Wait(t.Context(), "the back-off to end", 10*time.Second, func(context.Context) (bool, error) {
		var err error
		s, err = login(cfg)
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	cfg.Peer.Secret = []byte("another-target-secret")
	if _, err := login(cfg); err == nil {
		t.Error("a target that does not know its secret was taken for ours")
	}
	p := &path{t: t, s: s, lun: initiator.LUN(1)}
	p.told()
	luns := p.run(256, 0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
	var list []uint64
	for b := luns.DataIn[8 : 8+binary.BigEndian.Uint32(luns.DataIn)]; len(b) > 0; b = b[8:] {
		list = append(list, binary.BigEndian.Uint64(b))
	}
	if want := []uint64{0, initiator.LUN(1), initiator.LUN(300)}; !slices.Equal(list, want) {
		t.Errorf("host one has the LUNs %x, want %x", list, want)
	}
	write := func(p *path) initiator.Sense {
		ended := make(chan struct{})
		cmd := &initiator.Command{LUN: p.lun, CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, DataOut: make([]byte, 512), Done: func(*initiator.Command) { close(ended) }}
		p.s.Submit(cmd)
		<-ended
		if cmd.Err != nil {
			t.Fatal(cmd.Err)
		}
		return initiator.ParseSense(cmd.Sense)
	}
	if got := write(p); got.Key != 0 {
		t.Errorf("host one writes: %x", got)
	}
	s2, err := login(config(two))
	if err != nil {
		t.Fatal(err)
	}
	q := &path{t: t, s: s2, lun: initiator.LUN(1)}
	q.told()
	if got := write(q); got != (initiator.Sense{Key: initiator.KeyDataProtect, ASC: 0x27}) {
		t.Errorf("host two may only read, and writes: %x", got)
	}
	if read := q.run(512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0); read.Err != nil || read.Status != 0 {
		t.Errorf("host two reads: %v, status %x", read.Err, read.Status)
	}
	hosts, err := client.Hosts(t.Context())
	if err != nil || len(hosts) != 2 || len(hosts[0].Sessions) == 0 || !hosts[0].Sessions[0].CHAP || len(hosts[1].Sessions) != 1 || hosts[1].Sessions[0].CHAP {
		t.Errorf("%+v, %v", hosts, err)
	}
	// A map that ends takes the session with it; the LUN is gone at the next login.
	if err := client.UnmapLUN(t.Context(), "a", "two"); err != nil {
		t.Fatal(err)
	}
	<-s2.Done()
	refused("nothing is mapped", iscsi.LoginForbidden, config(two))
	if err := local.Wait(t.Context(), "events about the refusals", 10*time.Second, func(ctx context.Context) (bool, error) {
		events, err := client.Events(ctx, 0, 1000)
		seen := map[string]bool{}
		for _, e := range events {
			if e.Kind == "login-refused" {
				for _, name := range []string{"nobody", "one", "two"} {
					if strings.Contains(e.Text, "example:"+name) {
						seen[name] = true
					}
				}
			}
			if strings.Contains(e.Text, "secret-of-") || strings.Contains(e.Text, "-secret") {
				t.Errorf("an event tells a secret: %s", e.Text)
			}
		}
		return len(seen) == 3, err
	}); err != nil {
		events, _ := client.Events(t.Context(), 0, 1000)
		t.Fatalf("%v: %+v", err, events)
	}
	// Another node's portal, and after a failover: the same LUNs.
	st := settledAll(t, c)
	v, err := client.VerifyLUNs(t.Context())
	if err != nil || len(v.Faults) > 0 || len(v.Nodes) != 3 || len(v.LUNs) != 2 || len(v.Portals) != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := c.Kill(c.Index(st.Leader)); err != nil {
		t.Fatal(err)
	}
	d, err := initiator.OpenDisk(t.Context(), initiator.DiskConfig{Portals: []string{c.Virtual}, Initiator: one, Target: target, LUN: 300,
		Own: own, Peer: peer, Timeouts: initiator.PeerTimeouts(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.WriteAt(t.Context(), pattern(4096, 3), 0); err != nil {
		t.Fatal(err)
	}
}

// settledAll is settled for several volumes.
func settledAll(t *testing.T, c *local.Cluster) api.Status {
	t.Helper()
	st, err := c.WaitStatus(t.Context(), "all volumes to be served", time.Minute, func(s api.Status) bool {
		ok := s.Leader != ""
		for _, v := range s.Volumes {
			ok = ok && v.Served
		}
		for _, n := range s.Nodes {
			ok = ok && n.State == "alive" && n.Voter
		}
		return ok
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
