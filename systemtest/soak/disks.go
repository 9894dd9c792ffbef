package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"pmsapp/appliance/config"
	"pmsapp/systemtest/powerdisk"
)

// diskSize is that of each of a node's disks, in bytes.
const diskSize = 512 << 20

// disks are a node's whole storage: one disk for its state directory, one for its pool. They lose their power together, and a flush of one
// says nothing of the other.
type disks struct{ state, pool *powerdisk.Disk }

func (d disks) both() []*powerdisk.Disk { return []*powerdisk.Disk{d.state, d.pool} }

// makeDisks makes the disks of all nodes, empty, and mounts them.
func (s *soak) makeDisks(nodes int) error {
	random := rand.New(rand.NewPCG(s.cfg.Seed, 2))
	for i := range nodes {
		var d disks
		for name, at := range map[string]**powerdisk.Disk{"state": &d.state, "pool": &d.pool} {
			x, err := powerdisk.New(powerdisk.Config{Server: s.cfg.Disks, Size: diskSize, Seed: random.Uint64(),
				Dir: filepath.Join(s.cfg.Dir, "disks", fmt.Sprint("node", i+1, "-", name))})
			if err != nil {
				return fmt.Errorf("making a disk: %w", err)
			}
			s.closers = append(s.closers, x.Close)
			if s.cfg.Raw && name == "pool" {
				err = s.link(i, x)
			} else {
				err = x.Format()
			}
			if err != nil {
				return err
			}
			*at = x
		}
		s.disks = append(s.disks, d)
	}
	return nil
}

// onDisks puts a node on its disks, or its pool on its device.
func (s *soak) onDisks(i int, c *config.Config) {
	if s.disks != nil {
		c.State, c.Pools = s.disks[i].state.Mount, []string{s.disks[i].pool.Mount}
		if s.cfg.Raw {
			c.Pools = []string{s.poolLink(i)}
		}
	} else if len(s.cfg.Devices) > 0 {
		c.Pools = []string{s.cfg.Devices[i]}
	}
}

// poolLink is the name of a node's pool that is a disk itself: it stays the same, and the device does not.
func (s *soak) poolLink(i int) string {
	return filepath.Join(s.cfg.Dir, "disks", fmt.Sprint("node", i+1))
}

func (s *soak) link(i int, d *powerdisk.Disk) error {
	if err := os.Remove(s.poolLink(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(d.Device(), s.poolLink(i))
}

// cut has the power of nodes fail at one moment. First all their disks stand still, which is that moment: nothing that a node says later rests on
// anything that is written later. Then the processes are killed, and the disks lose what they had not flushed; only then do threads that wait for
// them go on, to their end.
func (s *soak) cut(nodes ...int) error {
	var all []*powerdisk.Disk
	for _, i := range nodes {
		all = append(all, s.disks[i].both()...)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	// Mostly a disk stands still before a flush, and all others at once after it: a replica's, or one with a catalog that changes.
	switch n := rand.IntN(8); {
	case n > 3:
		if err := aim(s.pools(nodes)); err != nil {
			return err
		}
	case n > 0:
		defer s.admins.begin()()
		var states []*powerdisk.Disk
		for _, i := range nodes {
			states = append(states, s.disks[i].state)
		}
		if err := aim(states); err != nil {
			return err
		}
	}
	for _, d := range all {
		if err := d.Freeze(); err != nil {
			return err
		}
	}
	for _, i := range nodes {
		if pid := s.cluster.Nodes[i].PID(); pid > 0 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	for _, i := range nodes {
		state, err := s.disks[i].state.Cut()
		if err != nil {
			return err
		}
		pool, err := s.disks[i].pool.Cut()
		if err != nil {
			return err
		}
		s.say("%s lost its power. State: %v. Pool: %v", s.cluster.Nodes[i].Name, state, pool)
	}
	for _, i := range nodes {
		if err := s.cluster.Kill(i); err != nil {
			return err
		}
	}
	return nil
}

// pools are the disks of nodes that have a replica.
func (s *soak) pools(nodes []int) (pools []*powerdisk.Disk) {
	for _, i := range nodes {
		if slices.Contains(s.members, s.cluster.Nodes[i].Name) {
			pools = append(pools, s.disks[i].pool)
		}
	}
	return pools
}

// aim waits until one of the disks stands still before a flush.
func aim(disks []*powerdisk.Disk) error {
	for _, d := range disks {
		if err := d.Aim(); err != nil {
			return err
		}
	}
	for until := time.Now().Add(time.Second); len(disks) > 0 && time.Now().Before(until); {
		for _, d := range disks {
			if c, err := d.Counts(); err != nil || c.Frozen {
				return err
			}
		}
	}
	return nil
}

// on brings a node's power back, and starts it.
func (s *soak) on(i int) error {
	for _, d := range s.disks[i].both() {
		if err := d.On(); err != nil {
			return err
		}
	}
	if s.cfg.Raw {
		if err := s.link(i, s.disks[i].pool); err != nil {
			return err
		}
	}
	return s.cluster.Start(i)
}

// proved reads every block and the catalog, and has every replica scrubbed: all are as they should be, and a round that was no damage to a
// medium has left none.
func (s *soak) proved(ctx context.Context, mends bool) error {
	if _, err := s.settled(ctx); err != nil {
		return err
	}
	if err := s.rec.readAll(ctx, s.reads); err != nil {
		return err
	}
	if err := s.admins.check(ctx); err != nil {
		return err
	}
	r, err := s.scrub(ctx)
	if err == nil && (r.Unreadable != 0 || r.Differing != 0 || r.Mended != 0 && !mends) {
		err = fmt.Errorf("a scrub has found something: %+v", r)
	}
	return err
}
