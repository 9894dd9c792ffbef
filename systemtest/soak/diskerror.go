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

	"pmsapp/appliance/api"
	"pmsapp/systemtest/powerdisk"
)

// victim is a replica at random: its node, and its pool.
func (s *soak) victim(v api.Volume) (i int, pool string) {
	r := v.Replicas[rand.IntN(len(v.Replicas))]
	return s.cluster.Index(r.Node), r.Pool
}

// badSectors has blocks of a replica fail to be read until they are written. They are mended from the other replicas, and no host hears of it.
func (s *soak) badSectors(ctx context.Context, st api.Status) error {
	i, pool := s.victim(st.Volumes[0])
	all, err := s.data(i, st.Volumes[0], pool)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("the replica has no data")
	}
	var bad []powerdisk.Range
	for len(bad) < 24 {
		r := all[rand.IntN(len(all))]
		if at := (powerdisk.Range{Off: r.Off + rand.Int64N(r.Len/blockSize)*blockSize, Len: blockSize}); !slices.Contains(bad, at) {
			bad = append(bad, at)
		}
	}
	disk := s.disks[i].pool
	if err := disk.Fail(powerdisk.Fault{Op: powerdisk.Read, Ranges: bad, Count: -1, UntilWritten: true}); err != nil {
		return err
	}
	defer disk.Fail()
	report, err := s.scrub(ctx)
	if err != nil {
		return err
	}
	c, err := disk.Counts()
	if err != nil {
		return err
	}
	s.say("%d blocks of the replica on %s could not be read: %d reads failed, the scrub mended %d bytes, %d blocks are left",
		len(bad), s.cluster.Nodes[i].Name, c.Hits, report.Mended, c.Bad)
	if c.Hits == 0 || c.Bad != 0 || report.Unreadable != 0 {
		return fmt.Errorf("%d blocks failed to be read; after a scrub (%+v): %+v", len(bad), report, c)
	}
	return s.proved(ctx, false)
}

// badWrites has some writes of a replica's data fail, anywhere in its file. The member leaves or its write is made good; nothing is lost.
func (s *soak) badWrites(ctx context.Context, st api.Status) error {
	i, pool := s.victim(st.Volumes[0])
	where, err := s.data(i, st.Volumes[0], pool)
	if err != nil {
		return err
	}
	if len(where) == 0 {
		return errors.New("the replica has no data")
	}
	return s.bad(ctx, i, powerdisk.Fault{Op: powerdisk.Write, Ranges: where, Count: 1 + rand.IntN(3)})
}

// badFlush has one flush of a pool fail. Of what was not flushed of its files, the disk has lost a part, and the next flush succeeds without it.
func (s *soak) badFlush(ctx context.Context, st api.Status) error {
	i, pool := s.victim(st.Volumes[0])
	where, err := s.everything(st.Volumes[0], pool)
	if err != nil {
		return err
	}
	return s.bad(ctx, i, powerdisk.Fault{Op: powerdisk.Flush, Ranges: where, Count: 1})
}

// bad is a round in which a node's pool has a fault that passes. Where the kernel has given the file system up for it, the node is started
// anew, as an admin would.
func (s *soak) bad(ctx context.Context, i int, f powerdisk.Fault) error {
	disk, name := s.disks[i].pool, s.cluster.Nodes[i].Name
	if err := disk.Fail(f); err != nil {
		return err
	}
	defer disk.Fail()
	limit := time.Now().Add(stuck)
	for {
		c, err := disk.Counts()
		if err == nil && c.Hits == 0 {
			err = s.progress(ctx, 1)
		}
		if err != nil {
			return err
		}
		if c.Hits > 0 {
			break
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the disk of %s was to fail at %s, and was not asked", name, f.Op)
		}
	}
	if err := s.progress(ctx, 300); err != nil {
		return err
	}
	c, err := disk.Counts()
	if err == nil {
		err = disk.Fail()
	}
	if err != nil {
		return err
	}
	again := ""
	if !s.onDevice() {
		probe := filepath.Join(disk.Mount, ".soak")
		err = os.WriteFile(probe, nil, 0o600)
		os.Remove(probe)
	}
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO) {
		again = "; the kernel gave up its file system"
		if err := s.cut(i); err != nil {
			return err
		}
		if err := s.on(i); err != nil {
			return err
		}
	}
	s.say("the pool of %s failed at %s %d times%s", name, f.Op, c.Hits, again)
	return s.proved(ctx, false)
}
