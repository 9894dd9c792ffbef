package daemons

import (
	"context"
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// path is one session with one portal, as a multipath host has it.
type path struct {
	t   *testing.T
	s   *initiator.Session
	lun uint64
}

func newPath(t *testing.T, portal string, lun api.LUN) *path {
	t.Helper()
	p := &path{t: t, lun: initiator.LUN(int(lun.Number))}
	// The export may not be known there yet: then the login is refused for the moment (03/01).
	if err := local.Wait(t.Context(), "the login at "+portal, 5*time.Second, func(ctx context.Context) (bool, error) {
		var err error
		p.s, err = initiator.Dial(ctx, initiator.Config{Portal: portal, Initiator: "iqn.2026-11.app.pmsapp:multipath", Target: lun.Target,
			Log: slog.New(slog.DiscardHandler)})
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.s.Close(); <-p.s.Done() })
	return p
}

func (p *path) run(in int, cdb ...byte) *initiator.Command {
	ended := make(chan struct{})
	cmd := &initiator.Command{LUN: p.lun, CDB: cdb, DataIn: make([]byte, in), Done: func(*initiator.Command) { close(ended) }}
	p.s.Submit(cmd)
	<-ended
	return cmd
}

// told takes the path's unit attentions and returns their codes.
func (p *path) told() (codes []uint16) {
	p.t.Helper()
	for range 10 {
		s := initiator.ParseSense(p.run(0, 0x00, 0, 0, 0, 0, 0).Sense)
		if s.Key != initiator.KeyUnitAttention {
			return codes
		}
		codes = append(codes, uint16(s.ASC)<<8|uint16(s.ASCQ))
	}
	p.t.Fatal("no end of unit attentions")
	return nil
}

// own is the path's port, by its device identification (VPD page 83h).
func (p *path) own() (port uint16) {
	p.t.Helper()
	cmd := p.run(512, 0x12, 1, 0x83, 2, 0, 0)
	if cmd.Err != nil || cmd.Status != 0 {
		p.t.Fatal(cmd.Err, cmd.Status)
	}
	for b := cmd.DataIn[4 : 4+binary.BigEndian.Uint16(cmd.DataIn[2:])]; len(b) >= 4; b = b[4+int(b[3]):] {
		if b[1]&0x3f == 0x14 { // relative target port identifier, of the target port
			return binary.BigEndian.Uint16(b[6:])
		}
	}
	p.t.Fatal("no relative target port identifier")
	return 0
}

// groups is REPORT TARGET PORT GROUPS: the states, by port.
func (p *path) groups() map[uint16]byte {
	p.t.Helper()
	var cmd *initiator.Command
	for range 10 { // a change of states may come between what has told of the one before and this
		p.told()
		cmd = p.run(512, 0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0)
		if s := initiator.ParseSense(cmd.Sense); s.Key != initiator.KeyUnitAttention {
			break
		}
	}
	if cmd.Err != nil || cmd.Status != 0 {
		p.t.Fatalf("%v, status %x, sense %x", cmd.Err, cmd.Status, cmd.Sense)
	}
	all := map[uint16]byte{}
	for b := cmd.DataIn[4 : 4+binary.BigEndian.Uint32(cmd.DataIn)]; len(b) >= 12; b = b[12:] {
		group, port := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[10:])
		if _, twice := all[port]; twice || group != port || b[7] != 1 {
			p.t.Fatalf("%x", cmd.DataIn)
		}
		all[port] = b[0] & 0xf
	}
	return all
}

// TestPaths: a multipath host with a session with each node's own portal, and none with the virtual address. Ports and groups keep
// their numbers, all paths agree on who is active, and a failover is told where the host is logged in already.
func TestPaths(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	st := settled(t, c)
	paths, ports := map[string]*path{}, map[string]uint16{}
	for _, n := range c.Nodes {
		paths[n.Name] = newPath(t, n.Config.Address.Portal, lun)
		ports[n.Name] = paths[n.Name].own()
	}
	// agree waits until every path that is left sees one active port, of a node, and all others standing by; and I/O goes there.
	agree := func(active string) {
		t.Helper()
		for name, p := range paths {
			if err := local.Wait(t.Context(), name+" to see "+active+" active", 15*time.Second, func(context.Context) (bool, error) {
				groups := p.groups()
				if len(groups) != 4 { // three nodes and the virtual address
					t.Fatalf("%s reports %v", name, groups)
				}
				for node, port := range ports {
					if state, ok := groups[port]; !ok || (node == active) != (state == 0) || state == 0xf {
						return false, nil
					}
				}
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
			// A host that finds its path now must learn how large the disk is: it does not ask again when the path becomes active.
			if capacity := p.run(8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0); capacity.Err != nil || capacity.Status != 0 || binary.BigEndian.Uint32(capacity.DataIn) != 64<<20/512-1 {
				t.Fatalf("READ CAPACITY at %s: %v, status %x, sense %x, data %x", name, capacity.Err, capacity.Status, capacity.Sense, capacity.DataIn)
			}
			read := p.run(4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)
			for range 3 { // the change of states is told once more when another port moves
				if s := initiator.ParseSense(read.Sense); s.Key != initiator.KeyUnitAttention || s.ASC != 0x2a || s.ASCQ != 6 {
					break
				}
				read = p.run(4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)
			}
			switch s := initiator.ParseSense(read.Sense); {
			case name == active && (read.Err != nil || read.Status != 0):
				t.Fatalf("READ at the active port: %v, status %x, sense %x", read.Err, read.Status, read.Sense)
			case name != active && (s.Key != initiator.KeyNotReady || s.ASC != 4 || s.ASCQ != 0x0b):
				t.Fatalf("READ at a port that stands by: %v, status %x, sense %x", read.Err, read.Status, read.Sense)
			}
		}
	}
	agree(st.Leader)
	for range 2 {
		old := st.Leader
		if err := c.Kill(c.Index(old)); err != nil {
			t.Fatal(err)
		}
		delete(paths, old)
		if st, err = c.WaitStatus(t.Context(), "another node to serve", 20*time.Second, func(s api.Status) bool {
			return s.Leader != "" && s.Leader != old && len(s.Volumes) == 1 && s.Volumes[0].Served
		}); err != nil {
			t.Fatal(err)
		}
		// On the same session: the state has changed, and the path that stood by is active.
		var told []uint16
		if err := local.Wait(t.Context(), "the unit attention", 10*time.Second, func(context.Context) (bool, error) {
			told = append(told, paths[st.Leader].told()...)
			for _, code := range told {
				if code == 0x2a06 {
					return true, nil
				}
			}
			return false, nil
		}); err != nil {
			t.Fatalf("%v: told %x", err, told)
		}
		agree(st.Leader)
		if err := c.Start(c.Index(old)); err != nil {
			t.Fatal(err)
		}
		settled(t, c)
		paths[old] = newPath(t, c.Nodes[c.Index(old)].Config.Address.Portal, lun)
		if got := paths[old].own(); got != ports[old] {
			t.Errorf("the port of %s was %d and is %d", old, ports[old], got)
		}
		agree(st.Leader)
	}
}
