package soak

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"time"

	"pmsapp/appliance/api"
)

const (
	regionSize = 1 << 20          // of the product's marks
	marksCool  = 14 * time.Second // how long a region stays marked after its last write, with some room
)

// away has a node with a replica away, killed or stopped, for a time between the shortest and the longest. What is written meanwhile goes to a part of the
// volume: that much has to be copied, and no more than half as much again.
func (s *soak) away(ctx context.Context, st api.Status, back *time.Time) error {
	i := s.follower(st)
	n, c := s.cluster.Nodes[i], s.cluster.Client()
	// Short absences are as frequent as long ones, on a scale of powers.
	long := time.Duration(float64(s.cfg.Least) * math.Pow(float64(s.cfg.Away)/float64(s.cfg.Least), rand.Float64()))
	if s.cfg.Ordered {
		long = s.cfg.Least
	}
	s.load.confine(2 + rand.IntN(3))
	defer s.load.confine(1)
	began := time.Now()
	if !s.cfg.Ordered {
		if err := s.pause(ctx, marksCool); err != nil {
			return err
		}
		began = time.Now()
	}
	leave, return_, how := s.cluster.Kill, s.cluster.Start, "dead"
	if rand.IntN(2) == 0 {
		leave, return_, how = s.cluster.Pause, s.cluster.Resume, "stopped"
	}
	s.say("%s is %s for %v", n.Name, how, long.Round(time.Second))
	if err := leave(i); err != nil {
		return err
	}
	err := s.progress(ctx, 100)
	err = first(err, s.pause(ctx, long))
	*back = time.Now()
	if err := first(return_(i), err); err != nil {
		return err
	}
	if _, err := s.settled(ctx); err != nil {
		return err
	}
	var copied, looked int64
	if err := s.until(ctx, "the event of the resync", func() (bool, error) {
		events, err := c.Events(ctx, 0, 500)
		copied, looked = 0, 0
		for _, e := range events {
			m := inSync.FindStringSubmatch(e.Text)
			if m == nil || e.Node != n.Name || e.Time.Before(*back) {
				continue
			}
			wrote, _ := strconv.ParseInt(m[1], 10, 64)
			of, _ := strconv.ParseInt(m[2], 10, 64)
			copied, looked = copied+wrote<<10, looked+of<<10
		}
		return looked > 0, err
	}); err != nil {
		return err
	}
	missed := int64(s.rec.touched(began.Add(-marksCool))) * regionSize
	s.say("%s was away: %d KiB were copied of %d compared; %d KiB lie in regions that were written", n.Name, copied>>10, looked>>10, missed>>10)
	if looked*2 > missed*3 || copied > looked {
		return fmt.Errorf("%s was away for %v: %d bytes were copied of %d compared, and %d lie in regions that it may have missed", n.Name, long, copied, looked, missed)
	}
	return s.proved(ctx, false)
}

// inSync is the event that says what a resync took.
var inSync = regexp.MustCompile(`is in sync: ([0-9]+) KiB written of ([0-9]+) in`)
