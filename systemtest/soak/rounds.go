package soak

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pmsapp/appliance/api"
)

// Kind is what happens in a round.
type Kind string

// The kinds of rounds.
const (
	LeaderKilled    Kind = "leader-killed"    // SIGKILL
	FollowerKilled  Kind = "follower-killed"  // SIGKILL, of one with a replica where there is one
	FollowerStopped Kind = "follower-stopped" // SIGSTOP for stopTime, likewise
	LeaderStopped   Kind = "leader-stopped"   // SIGSTOP for stopTime
	AllKilled       Kind = "all-killed"       // SIGKILL of all, and restart
	HandOver        Kind = "hand-over"        // by command
	Terminated      Kind = "leader-ended"     // SIGTERM
	Move            Kind = "move"             // of a replica, by command
	Grow            Kind = "grow"             // of the volume, by command
	BitFlip         Kind = "bit-flip"         // bits of a replica's file flip, and the volume is scrubbed
	Away            Kind = "away"             // a follower with a replica is dead or stopped for 10 s to 10 min

	// These need disks of package powerdisk.
	PowerLeader   Kind = "power-leader"   // its power fails: what its disks have not flushed is lost
	PowerFollower Kind = "power-follower" // likewise, of one with a replica
	PowerAll      Kind = "power-all"      // of all at once
	BadSectors    Kind = "bad-sectors"    // blocks of a replica cannot be read
	BadWrites     Kind = "bad-writes"     // writes to a replica fail
	BadFlush      Kind = "bad-flush"      // a flush of a pool fails, and loses what it was to make durable
	FullPool      Kind = "full-pool"      // a pool is filled from outside
)

// Kinds are those that need nothing but directories, but for Away, which takes its time.
func Kinds() []Kind {
	return []Kind{LeaderKilled, FollowerStopped, LeaderStopped, FollowerKilled, AllKilled, HandOver, Terminated, Move, Grow, BitFlip}
}

// DiskKinds are those that need disks of package powerdisk, but for FullPool, which makes a volume of its own.
func DiskKinds() []Kind {
	return []Kind{PowerLeader, PowerAll, PowerFollower, BadSectors, BadWrites, BadFlush}
}

// onDisks tells whether a kind is one of those.
func (k Kind) onDisks() bool {
	return k == FullPool || slices.Contains(DiskKinds(), k)
}

// ofFiles tells whether a kind needs a pool with files beside its own.
func (k Kind) ofFiles() bool { return k == FullPool }

// limit is the target for a kind's standstill: of its median and of its maximum; 0 means none. The targets are reported, not
// asserted: a machine that does other things beside would fail them at random.
func (k Kind) limit() (median, most time.Duration) {
	switch k {
	case LeaderKilled:
		return 1500 * time.Millisecond, 4 * time.Second
	case FollowerKilled:
		return 0, 500 * time.Millisecond
	case FollowerStopped:
		return 0, 4 * time.Second
	case LeaderStopped:
		return 0, 6 * time.Second
	case HandOver, Terminated:
		return 0, 300 * time.Millisecond
	}
	return 0, 0
}

const (
	stopTime   = 8 * time.Second
	settleTime = 2 * time.Minute // for everybody to be in sync again
	// stuck is how long I/O may stand still before the round has failed: the hosts' timers have expired by then.
	stuck = 30 * time.Second
)

// Round is what a round has shown.
type Round struct {
	Kind       Kind
	Standstill time.Duration
	Resync     time.Duration // from the victim's return until all are in sync
	Elected    time.Duration // from the fault to the take-over, for kinds with one
	Served     time.Duration // from the take-over to the first volume served
	Client     time.Duration // from there to the first write that ended
}

// round carries a round out, under load.
func (s *soak) round(ctx context.Context, k Kind) (r Round, err error) {
	st, err := s.settled(ctx)
	if err != nil {
		return r, err
	}
	if err := s.progress(ctx, 500); err != nil {
		return r, err
	}
	if k.onDisks() && s.disks == nil {
		return r, fmt.Errorf("the kind %s needs disks", k)
	}
	if k.ofFiles() && s.onDevice() {
		return r, fmt.Errorf("the kind %s needs files", k)
	}
	leader, follower := s.cluster.Index(st.Leader), s.follower(st)
	r.Kind, s.members = k, nil
	for _, x := range st.Volumes[0].Replicas {
		s.members = append(s.members, x.Node)
	}
	began := time.Now()
	back := began
	switch k {
	case LeaderKilled:
		err = s.killed(ctx, leader, &back)
	case FollowerKilled:
		err = s.killed(ctx, follower, &back)
	case FollowerStopped:
		err = s.stopped(ctx, follower, false, &back)
	case LeaderStopped:
		err = s.stopped(ctx, leader, true, &back)
	case AllKilled:
		err = s.allKilled(ctx, st, &back)
	case HandOver:
		err = s.cluster.Client().Transfer(ctx, "")
	case Terminated:
		if err = s.cluster.Terminate(leader, 20*time.Second); err == nil {
			err = s.progress(ctx, 200)
			back = time.Now()
			err = first(err, s.cluster.Start(leader))
		}
	case Move:
		err = s.move(ctx, st, &back)
	case Grow:
		err = s.grow(ctx, st, &back)
	case BitFlip:
		err = s.bitFlip(ctx, st)
	case Away:
		err = s.away(ctx, st, &back)
	case PowerLeader:
		err = s.power(ctx, leader, &back)
	case PowerFollower:
		err = s.power(ctx, follower, &back)
	case PowerAll:
		err = s.powerAll(ctx, st, &back)
	case BadSectors:
		err = s.badSectors(ctx, st)
	case BadWrites:
		err = s.badWrites(ctx, st)
	case BadFlush:
		err = s.badFlush(ctx, st)
	case FullPool:
		err = s.fullPool(ctx, st)
	default:
		err = fmt.Errorf("there is no kind of round %q", k)
	}
	if err != nil {
		return r, err
	}
	after, err := s.settled(ctx)
	if err != nil {
		return r, err
	}
	if err := s.progress(ctx, 200); err != nil {
		return r, err
	}
	if was, is := st.Volumes[0].Losses, after.Volumes[0].Losses; was != is && k != PowerAll && k != AllKilled {
		return r, fmt.Errorf("hosts were told of a loss (%d times, %d before) though one replica kept its power", is, was)
	}
	end := time.Now()
	r.Resync = end.Sub(back)
	r.Standstill = s.rec.standstill(began, end)
	if after.Epoch != st.Epoch {
		s.phases(ctx, &r, began)
	}
	return r, nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// killed kills a node, waits until I/O goes on without it, and starts it again.
func (s *soak) killed(ctx context.Context, i int, back *time.Time) error {
	if err := s.cluster.Kill(i); err != nil {
		return err
	}
	if err := s.progress(ctx, 500); err != nil {
		return err
	}
	*back = time.Now()
	return s.cluster.Start(i)
}

// enough is how many reads a stopped leader must find in its socket, of blocks written since, or the round has shown nothing.
const enough = 20

// stopped stops a node's process as a whole for a while.
func (s *soak) stopped(ctx context.Context, i int, leads bool, back *time.Time) error {
	n := s.cluster.Nodes[i]
	w := watchPortal(ctx, s.rec, n.Config.Address.Portal, s.lun.Target, int(s.lun.Number))
	err := s.progress(ctx, 50)
	if err == nil && leads {
		err = w.reads(ctx)
	}
	w.stops.Store(leads)
	if err = first(err, s.cluster.Pause(i)); err != nil {
		return first(w.stop(), err)
	}
	err = s.pause(ctx, time.Second)
	w.stopped()
	err = first(err, s.pause(ctx, stopTime-time.Second))
	*back = time.Now()
	before, waiting := w.answers.Load(), w.telling.Load()
	err = first(err, s.cluster.Resume(i))
	err = first(err, s.pause(ctx, time.Second)) // what it still had to answer, it answers now
	if leads {
		s.say("%s found %d reads of blocks written since it was stopped; %d reads had data a second later", n.Name, waiting, w.answers.Load()-before)
	}
	err = first(w.stop(), err)
	if err == nil && leads && waiting < enough {
		err = fmt.Errorf("only %d reads waited for %s when it went on: stale answers could not have been seen", waiting, n.Name)
	}
	return err
}

// allKilled kills everybody and starts everybody again.
func (s *soak) allKilled(ctx context.Context, st api.Status, back *time.Time) error {
	for i := range s.cluster.Nodes {
		if err := s.cluster.Kill(i); err != nil {
			return err
		}
	}
	s.rec.lose()
	*back = time.Now()
	for i := range s.cluster.Nodes {
		if err := s.cluster.Start(i); err != nil {
			return err
		}
	}
	if err := s.progress(ctx, 200); err != nil {
		return err
	}
	return s.told(ctx, st)
}

// follower is a node that does not lead, with a replica if there is such a one.
func (s *soak) follower(st api.Status) int {
	for _, r := range st.Volumes[0].Replicas {
		if r.Node != st.Leader {
			return s.cluster.Index(r.Node)
		}
	}
	for i, n := range s.cluster.Nodes {
		if n.Name != st.Leader {
			return i
		}
	}
	return -1
}

// settled waits until every node is there and every replica is in sync.
func (s *soak) settled(ctx context.Context) (api.Status, error) {
	st, err := s.cluster.WaitStatus(ctx, "all nodes to be alive and all replicas in sync", settleTime, func(st api.Status) bool {
		if s.load.err() != nil {
			return true // nothing is left to wait for
		}
		ok := st.Leader != "" && len(st.Volumes) == 1 && len(st.Nodes) == len(s.cluster.Nodes)
		for _, v := range st.Volumes {
			ok = ok && v.Served && len(v.Gone) == 0
			for _, r := range v.Replicas {
				ok = ok && r.State == "in sync" && r.Leaves == ""
			}
		}
		for _, n := range st.Nodes {
			ok = ok && n.State == "alive" && n.Voter
		}
		return ok
	})
	return st, first(s.load.err(), err)
}

// progress waits until some more writes have ended.
func (s *soak) progress(ctx context.Context, writes int) error {
	until, limit := s.rec.count()+writes, time.After(stuck)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.rec.count() < until {
		if err := s.load.err(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("I/O stood still for %v", stuck)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// until waits until f says yes, for as long as I/O may stand still.
func (s *soak) until(ctx context.Context, what string, f func() (bool, error)) error {
	for limit := time.Now().Add(stuck); ; {
		yes, err := f()
		if yes || err != nil {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("waited for %s for %v", what, stuck)
		}
		if err := s.pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *soak) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return s.load.err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// phases tells from the event log where the time of a failover went.
func (s *soak) phases(ctx context.Context, r *Round, began time.Time) {
	events, err := s.cluster.Client().Events(ctx, 0, 200)
	if err != nil {
		return
	}
	var took, served time.Time
	for _, e := range events {
		switch {
		case e.Time.Before(began):
		case e.Kind == "took-over":
			took, served = e.Time, time.Time{}
		case e.Kind == "volume-served" && served.IsZero():
			served = e.Time
		}
	}
	if took.IsZero() || served.IsZero() {
		return
	}
	r.Elected, r.Served = took.Sub(began), served.Sub(took)
	if at, ok := s.rec.first(served); ok {
		r.Client = at.Sub(served)
	}
}
