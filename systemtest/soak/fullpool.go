package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"pmsapp/appliance/api"
)

// fullPool fills a replica's pool from outside, while a second volume, which has holes, is written. Its writes are refused then, no member
// leaves, nothing is lost, and it goes on when there is room.
func (s *soak) fullPool(ctx context.Context, st api.Status) (err error) {
	i, _ := s.victim(st.Volumes[0])
	c := s.cluster.Client()
	var nodes []string
	for _, r := range st.Volumes[0].Replicas {
		nodes = append(nodes, r.Node)
	}
	const size = 64 << 20
	if _, err := c.CreateVolume(ctx, api.NewVolume{Name: "thin", Size: size, Nodes: nodes, Replicas: len(nodes), OverSubscribe: true}); err != nil {
		return fmt.Errorf("creating a thin volume: %w", err)
	}
	lun, err := c.Export(ctx, api.NewLUN{Volume: "thin"})
	if err != nil {
		return fmt.Errorf("exporting it: %w", err)
	}
	writes, reads, err := s.login(ctx, lun)
	if err != nil {
		return err
	}
	defer writes.Close()
	defer reads.Close()
	rec := newRecord(size/blockSize, s.rec.seed+1)
	thin := start(ctx, rec, writes, reads, false)
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, thin.stop())
		}
	}()
	main := s.load
	thin.mayBeRefused(true)
	main.mayBeRefused(true)
	// What began before the flag was seen has ended by then.
	was := rec.count()
	if err := s.until(ctx, "the thin volume to be written", func() (bool, error) { return rec.count() > was+10*depth, thin.err() }); err != nil {
		return err
	}
	if err := s.progress(ctx, 10*depth); err != nil {
		return err
	}
	filler := filepath.Join(s.disks[i].pool.Mount, "filler")
	defer os.Remove(filler)
	if err := fill(filler); err != nil {
		return err
	}
	if err := s.until(ctx, "writes to be refused", func() (bool, error) { return thin.refused.Load() >= 200, thin.err() }); err != nil {
		return err
	}
	now, err := c.Status(ctx, false)
	if err != nil {
		return err
	}
	for _, v := range now.Volumes {
		for _, r := range v.Replicas {
			if r.State != "in sync" {
				return fmt.Errorf("a full pool has removed a member: %s on %s is %s (%s)", v.Name, r.Node, r.State, r.Error)
			}
		}
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	// ext4 gives the space back when its journal is committed.
	if err := syncFiles(s.disks[i].pool.Mount); err != nil {
		return err
	}
	thin.mayBeRefused(false)
	main.mayBeRefused(false)
	was = rec.count()
	if err := s.until(ctx, "writes after there is room again", func() (bool, error) { return rec.count() > was+500, thin.err() }); err != nil {
		return err
	}
	s.say("the pool of %s was full: %d and %d writes were refused, none has been since there is room", s.cluster.Nodes[i].Name,
		thin.refused.Load(), main.refused.Swap(0))
	stopped = true
	if err := thin.stop(); err != nil {
		return fmt.Errorf("the thin volume: %w", err)
	}
	if err := rec.readAll(ctx, reads); err != nil {
		return fmt.Errorf("the thin volume: %w", err)
	}
	if err := c.Unexport(ctx, "thin"); err != nil {
		return err
	}
	if err := c.DeleteVolume(ctx, "thin", true); err != nil {
		return err
	}
	return s.proved(ctx, false)
}

func syncFiles(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// fill makes a file that takes all the room there is.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	at := int64(0)
	for part := int64(64 << 20); part >= blockSize; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, part); {
		case err == nil:
			at += part
		case errors.Is(err, syscall.ENOSPC):
			part /= 2
		case !errors.Is(err, syscall.EINTR):
			return err
		}
	}
	return nil
}
