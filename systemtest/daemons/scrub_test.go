package daemons

import (
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestScrubReports: a report says when its scrub began and ended, and which command it answers; so nobody takes an earlier one for his own.
func TestScrubReports(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2})
	if err := d.WriteAt(t.Context(), pattern(1<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	for range 3 {
		asked := time.Now()
		begun, err := c.Client().Scrub(t.Context(), "v", api.NewScrub{Rate: 10000})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, c, "the scrub to end", func(s api.Status) bool {
			return s.Leader != "" && (s.Volumes[0].Scrub == nil || !s.Volumes[0].Scrub.Running)
		})
		over := time.Now()
		var r api.ScrubReport
		expect(t, c, "the scrub's report", func(s api.Status) bool {
			x := s.Volumes[0].Scrub
			if x == nil || x.Last == nil || !x.Last.Ended.After(asked) {
				return false
			}
			r = *x.Last
			return true
		})
		if r.Ended.After(over) || !r.Began.Equal(begun.Began) || r.Began.Before(asked) || begun.Request == "" || r.Request != begun.Request {
			t.Errorf("a scrub that was asked for at %v (%+v) and over at %v says %+v", asked, begun, over, r)
		}
	}
}
