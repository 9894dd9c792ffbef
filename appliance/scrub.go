package appliance

import (
	"context"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/reign"
)

// scrubEvery is how often the leader looks whether a scrub has ended or is due.
const scrubEvery = 2 * time.Second

// firstScrub is how long a node leads before it scrubs what never was scrubbed.
const firstScrub = time.Hour

// scrubs knows what the leader has seen of scrubs. It is pure.
type scrubs struct {
	recorded map[ids.Volume]*mirror.ScrubReport // the last one of each mirror that is in the catalog, or need not be
	since    time.Time                          // when this node began to lead
}

// due is the volume whose scrub is to begin: the one whose last is the longest ago, if that is more than the interval and none
// is under way. One that never was scrubbed is due when this node has led for an hour: a new cluster is busy enough. So is one whose last
// has not ended yet by this clock: another leader's, or this one, was ahead then, and it may be years until that time comes.
func (s *scrubs) due(now time.Time, every time.Duration, open map[ids.Volume]mirror.Status, st *catalog.State) (next ids.Volume, ok bool) {
	if every == 0 {
		return next, false
	}
	oldest := now.Add(-every)
	for v, m := range open {
		if m.Scrub != nil {
			return ids.Volume{}, false
		}
		at := s.since.Add(firstScrub - every)
		if r := st.Volumes[v].Scrub; r != nil && !r.Ended.After(now) {
			at = r.Ended
		}
		if at.Before(oldest) || at.Equal(oldest) && ok && v.String() < next.String() {
			next, oldest, ok = v, at, true
		}
	}
	return next, ok
}

// watchScrubs begins scrubs that are due, and records those that have ended, while this node leads.
func (n *node) watchScrubs(ctx context.Context) {
	whileLeading(ctx, n, scrubEvery, func() *scrubs {
		return &scrubs{recorded: map[ids.Volume]*mirror.ScrubReport{}, since: time.Now()}
	}, n.lookAtScrubs)
}

func (n *node) lookAtScrubs(ctx context.Context, s *scrubs) {
	open, mirrors := map[ids.Volume]mirror.Status{}, n.service.open()
	for v, m := range mirrors {
		open[v] = m.Status()
	}
	for v, m := range open {
		if r := m.Scrubbed; r != nil && s.recorded[v] != r && n.recordScrub(ctx, v, *r) {
			s.recorded[v] = r
		}
	}
	cfg := n.scrubConfig()
	if v, ok := s.due(time.Now(), cfg.Interval, open, n.cluster.State()); ok {
		if err := mirrors[v].StartScrub(mirror.ScrubOrder{Rate: cfg.Rate << 20, Now: time.Now()}); err != nil {
			n.log.Debug("a scrub could not begin", "volume", v.String(), "err", err)
		}
	}
}

// recordScrub puts the report into the catalog; false: not now.
func (n *node) recordScrub(ctx context.Context, v ids.Volume, r mirror.ScrubReport) bool {
	st := n.cluster.State()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := n.cluster.Propose(ctx, catalog.Command{Body: catalog.Scrubbed{Epoch: st.Epoch, Volume: v, Report: scrubReport(r)}})
	if err != nil {
		n.log.Debug("the report of a scrub was not recorded", "volume", v.String(), "err", err)
	}
	return err == nil
}

// scrubReport is a mirror's report as the catalog has it.
func scrubReport(r mirror.ScrubReport) catalog.ScrubReport {
	return catalog.ScrubReport{Began: r.Began.UTC(), Ended: r.Ended.UTC(), Seconds: r.Seconds, Request: r.Request, Bytes: r.Bytes,
		Mended: r.Mended, Unreadable: r.Unreadable, Differing: r.Differing}
}

func (n *node) scrubConfig() config.Scrub {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.scrub
}

// open are the mirrors that serve.
func (s *service) open() map[ids.Volume]reign.Mirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[ids.Volume]reign.Mirror{}
	for v, m := range s.mirrors {
		out[v] = m
	}
	return out
}

// Scrub implements api.Backend.
func (n *node) Scrub(_ context.Context, request, name string, w api.NewScrub) (api.Scrubbing, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Scrubbing{}, err
	}
	m := n.service.open()[v.ID]
	if m == nil {
		return api.Scrubbing{}, told(reign.ErrNotServed)
	}
	rate := n.scrubConfig().Rate
	switch {
	case w.Stop:
		m.StopScrub()
		return api.Scrubbing{}, nil
	case w.Rate < 0 || w.Rate > 10000:
		return api.Scrubbing{}, api.Errorf(api.ErrInvalid, "", "rate: %d is not 1 to 10000", w.Rate)
	case w.Rate > 0:
		rate = w.Rate
	}
	now := m.Status()
	if s := now.Scrub; s != nil {
		return api.Scrubbing{Request: s.Report.Request, Began: s.Report.Began.UTC()}, nil
	}
	if r := now.Scrubbed; r != nil && r.Request == request { // the command comes again
		return api.Scrubbing{Request: request, Began: r.Began.UTC()}, nil
	}
	o := mirror.ScrubOrder{Rate: rate << 20, Now: time.Now(), Request: request}
	if err := m.StartScrub(o); err != nil {
		return api.Scrubbing{}, told(reign.ErrBusy)
	}
	return api.Scrubbing{Request: request, Began: o.Now.UTC()}, nil
}

// scrubState is what status says of a volume's scrubs.
func scrubState(v catalog.Volume, m mirror.Status) *api.Scrub {
	var out api.Scrub
	last := v.Scrub
	if m.Scrubbed != nil { // it may not be recorded yet
		r := scrubReport(*m.Scrubbed)
		last = &r
	}
	if r := last; r != nil {
		out.Last = &api.ScrubReport{Began: r.Began, Ended: r.Ended, Seconds: r.Seconds, Request: r.Request, Bytes: r.Bytes, Mended: r.Mended,
			Unreadable: r.Unreadable, Differing: r.Differing}
	}
	if s := m.Scrub; s != nil {
		out.Running, out.Began, out.Request, out.Done, out.Total = true, s.Report.Began.UTC(), s.Report.Request, s.Done, s.Total
	}
	if out.Last == nil && !out.Running {
		return nil
	}
	return &out
}
