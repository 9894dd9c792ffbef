package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pmsapp/appliance/api"
	buffers "pmsapp/internal/block"
)

const (
	flipBlock = 4096
	flips     = 48
)

// flipped is a block of a replica's file, as it was left.
type flipped struct {
	off int64
	is  []byte
}

// bitFlip flips bits of one replica under load, and scrubs: nothing of what was flipped is left, and a second scrub finds nothing.
// That nothing wrong is read is seen by the load itself.
func (s *soak) bitFlip(ctx context.Context, st api.Status) error {
	v := st.Volumes[0]
	r := v.Replicas[rand.IntN(len(v.Replicas))]
	path, pick := filepath.Join(r.Pool, "replicas", v.ID, "data"), inFile
	if s.onDevice() {
		i := s.cluster.Index(r.Node)
		where, err := s.data(i, v, r.Pool)
		if err != nil {
			return err
		}
		path, pick = s.device(i), func(*os.File) (int64, bool) {
			x := where[rand.IntN(len(where))]
			return x.Off + rand.Int64N(x.Len), true
		}
		if len(where) == 0 {
			return errors.New("the replica has no data")
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	list, err := flipBits(f, pick)
	if err != nil {
		return err
	}
	began := time.Now()
	first, err := s.scrub(ctx)
	if err != nil {
		return err
	}
	s.say("%d bits of the replica on %s were flipped; the scrub mended %d bytes", len(list), r.Node, first.Mended)
	events, err := s.cluster.Client().Events(ctx, 0, 500)
	if err != nil {
		return err
	}
	mended := 0
	for _, e := range events {
		if e.Kind == "replica-mended" && e.Time.After(began.Add(-time.Second)) {
			mended++
		}
	}
	if len(list) == 0 || first.Unreadable != 0 || first.Mended == 0 && mended == 0 {
		return fmt.Errorf("%d bits were flipped; the scrub says %+v, and %d events tell of a mended replica", len(list), first, mended)
	}
	for _, x := range list {
		b := buffers.Get(flipBlock)
		_, err := f.ReadAt(b, x.off)
		left := bytes.Equal(b, x.is)
		buffers.Put(b)
		if err != nil || left {
			return fmt.Errorf("the block at %d of the replica on %s is still as it was flipped (%v)", x.off, r.Node, err)
		}
	}
	second, err := s.scrub(ctx)
	if err == nil && (second.Mended != 0 || second.Unreadable != 0 || second.Differing != 0) {
		err = fmt.Errorf("a second scrub still finds something: %+v", second)
	}
	return err
}

// inFile picks a byte that a file has.
func inFile(f *os.File) (at int64, ok bool) {
	info, err := f.Stat()
	if err == nil {
		at, err = unix.Seek(int(f.Fd()), rand.Int64N(info.Size()), unix.SEEK_DATA)
	}
	return at, err == nil && at/flipBlock*flipBlock+flipBlock <= info.Size() // else there are only holes behind it
}

// flipBits flips a bit in each of some blocks that pick finds. The load writes meanwhile: a block that it writes between our read
// and our write has old bytes then, which is as bad. Of what never was written, as a part of a pool's unit may be, there is no checksum.
func flipBits(f *os.File, pick func(*os.File) (int64, bool)) (list []flipped, err error) {
	seen := map[int64]bool{}
	b := buffers.Get(flipBlock)
	defer buffers.Put(b)
	for tries := 0; len(list) < flips && tries < 100*flips; tries++ {
		at, ok := pick(f)
		if at = at / flipBlock * flipBlock; !ok || seen[at] {
			continue
		}
		seen[at] = true
		if _, err = f.ReadAt(b, at); err == nil && len(bytes.TrimLeft(b, "\x00")) == 0 {
			continue
		}
		if err == nil {
			b[rand.IntN(flipBlock)] ^= 1 << rand.IntN(8)
			_, err = f.WriteAt(b, at)
		}
		list = append(list, flipped{at, bytes.Clone(b)})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// scrub scrubs the volume and returns the report of a scrub that began since.
func (s *soak) scrub(ctx context.Context) (api.ScrubReport, error) {
	began := time.Now()
	// One that a take-over has ended is begun again.
	asked := time.Time{}
	st, err := s.cluster.WaitStatus(ctx, "the scrub to end", settleTime, func(st api.Status) bool {
		if s.load.err() != nil {
			return true
		}
		if len(st.Volumes) == 0 {
			return false
		}
		x := st.Volumes[0].Scrub
		if x != nil && x.Last != nil && !x.Last.Began.Before(began) {
			return true
		}
		if (x == nil || !x.Running) && time.Since(asked) > 2*time.Second {
			s.cluster.Client().Scrub(ctx, st.Volumes[0].Name, api.NewScrub{Rate: 10000}) // an error shows in that none runs
			asked = time.Now()
		}
		return false
	})
	if err = first(s.load.err(), err); err != nil {
		return api.ScrubReport{}, err
	}
	return *st.Volumes[0].Scrub.Last, nil
}
