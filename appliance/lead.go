package appliance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"pmsapp/appliance/front"
	"pmsapp/appliance/vip"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/mirror"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// service brings together what cluster and reign say with what hosts see: it is the observer of both. Its methods do not
// block; the virtual address is the loop's, which looks at what is to be rather than at what happened.
type service struct {
	hosts        *front.Hosts
	reign        *reign.Reign     // set before anything is observed
	cluster      *cluster.Cluster // likewise
	vip          *vip.Holder      // nil: there is no virtual address
	events       *eventLog
	reservations *reservations
	door         *nfsDoor
	failed       func(error)
	log          *slog.Logger

	wake  chan struct{} // has room for one
	ready chan struct{} // closed when all of the above is set: nothing is acted on before
	gone  chan struct{} // closed when the node ends: nothing is acted on any more, if it never was

	exporting sync.Mutex // held by who makes the targets those of the newest State

	// mu guards what follows. It is held while hosts is told to serve or to wait, so that Follows, which comes after, ends all
	// of that. Nothing that hosts calls needs it.
	mu      sync.Mutex
	leading bool
	closing bool                        // the node is on its way down: it wants no address
	mirrors map[ids.Volume]reign.Mirror // those that serve
}

// acts waits until the node is complete; false: it never will be.
func (s *service) acts() bool {
	select {
	case <-s.ready:
		return true
	case <-s.gone:
		return false
	}
}

func (s *service) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Leads implements cluster.Observer.
func (s *service) Leads() {
	if !s.acts() {
		return
	}
	s.mu.Lock()
	s.leading = true
	s.mu.Unlock()
	s.door.shares.Lead(true)
	s.reign.Lead()
	s.look()
}

// Follows implements cluster.Observer. Hosts are sent away at once: what they left unanswered is for the next leader.
func (s *service) Follows() {
	if !s.acts() {
		return
	}
	s.mu.Lock()
	s.leading = false
	s.mu.Unlock()
	s.reign.Follow()
	s.hosts.StandbyAll()
	s.door.shares.Lead(false)
	s.door.drop(front.ErrNotServed)
	s.look()
}

// Changed implements cluster.Observer.
func (s *service) Changed() {
	if !s.acts() {
		return
	}
	if err := s.applyExports(); err != nil {
		s.log.Error("an export cannot be offered", "err", err)
	}
	s.reign.ViewChanged()
	s.look()
}

// applyExports makes the targets those of the newest State. The State is read under the lock: of two that are at it at once,
// the later one does not bring back what the earlier one has seen the end of.
func (s *service) applyExports() error {
	s.exporting.Lock()
	defer s.exporting.Unlock()
	st := s.cluster.State()
	hosts, volumes := maps(st)
	return errors.Join(s.hosts.Apply(exports(st)), s.hosts.ApplyMaps(hosts, volumes))
}

// Opinion implements cluster.Observer.
func (s *service) Opinion(n ids.Node, l cluster.Liveness) {
	if !s.acts() {
		return
	}
	if l == cluster.Alive {
		s.reign.Alive(n)
	} else {
		s.reign.Suspect(n)
	}
}

// Failed implements cluster.Observer.
func (s *service) Failed(err error) { s.failed(err) }

// Serving implements reign.Observer.
func (s *service) Serving(v truth.Volume, dev block.Device) {
	s.mu.Lock()
	if m, ok := dev.(reign.Mirror); ok {
		s.mirrors[v.ID] = m
	}
	switch {
	case !s.leading: // Follow has been called, and Standby comes
	case v.Share:
		s.door.shares.Serve(v.ID, uint64(v.LastServed), dev)
	default:
		s.hosts.Serve(v.ID, dev, keeper{s.reservations, v.ID, uint64(v.LastServed)})
	}
	s.mu.Unlock()
	s.look()
}

// Standby implements reign.Observer.
func (s *service) Standby(v ids.Volume, _ string) {
	s.mu.Lock()
	delete(s.mirrors, v)
	s.mu.Unlock()
	s.hosts.Standby(v)
	if s.cluster.State().Volumes[v].Share {
		s.door.drop(front.ErrNotServed)
	}
	s.door.shares.Standby(v)
	s.look()
}

// Event implements reign.Observer.
func (s *service) Event(e reign.Tell) {
	s.events.add(catalog.Event{Kind: string(e.Kind), Node: e.Node, Volume: e.Volume, Text: e.Text})
	s.look()
}

// mirror returns what the mirror of a volume says of itself.
func (s *service) mirror(v ids.Volume) (mirror.Status, bool) {
	s.mu.Lock()
	m := s.mirrors[v]
	s.mu.Unlock()
	if m == nil {
		return mirror.Status{}, false
	}
	return m.Status(), true
}

// cached tells whether the device of a volume that is served here tells hosts of a write cache.
func (s *service) cached(v ids.Volume) (cached, served bool) {
	s.mu.Lock()
	m := s.mirrors[v]
	s.mu.Unlock()
	if m == nil {
		return false, false
	}
	return m.Geometry().Volatile, true
}

// close gives the virtual address up for good.
func (s *service) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.look()
}

// run keeps the virtual address where it belongs: at the leader, once it has a device, serving or waiting, for every LUN. So
// a host behind the address never meets NOT READY, which some take for a failure.
func (s *service) run(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	held := false
	for {
		s.mu.Lock()
		want := s.leading && !s.closing
		s.mu.Unlock()
		if want && !s.hosts.Known() {
			s.holdWaiting()
			want = s.hosts.Known() && s.cluster.State().Leader == s.cluster.Self()
		}
		if s.vip != nil && want != held {
			if held = want; held {
				s.vip.Hold()
			} else {
				s.vip.Release()
			}
		}
		select {
		case <-ctx.Done():
			if held {
				s.vip.Release()
			}
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// holdWaiting has the LUs of volumes that this leader cannot serve hold their I/O (invariant 5).
func (s *service) holdWaiting() {
	st := s.reign.Status()
	if !st.Leading || st.Epoch == 0 {
		return
	}
	volumes := s.cluster.State().Volumes
	for _, v := range st.Volumes {
		if v.State == reign.Waits || v.State == reign.NeedsForce {
			if cv, ok := volumes[v.Volume]; ok && !cv.Share {
				s.mu.Lock()
				if s.leading { // it may have ended meanwhile
					s.hosts.Wait(v.Volume, geometry(cv))
				}
				s.mu.Unlock()
			}
		}
	}
}

// physicalBlock is what all LUs report: the unit in which order is judged.
const physicalBlock = 4096

// geometry is a volume's as its mirror will have it.
func geometry(v catalog.Volume) block.Geometry {
	return block.Geometry{Size: v.Size, Logical: v.Logical, Physical: physicalBlock, MaxLen: 8 << 20}
}

// active is the group of the node that serves a volume, as far as the catalog tells; 0 while none does.
func active(s *catalog.State, v catalog.Volume) uint16 {
	if v.LastServed != s.Epoch {
		return 0
	}
	return s.Nodes[s.Leader].Group
}

// maps are the catalog's hosts, and the volumes that are mapped to them.
func maps(s *catalog.State) (hosts []front.Host, volumes []front.Offered) {
	luns := map[string][]front.HostLUN{}
	for id, all := range s.Maps {
		v, ok := s.Volumes[id]
		if !ok {
			continue
		}
		volumes = append(volumes, front.Offered{Volume: id, Name: v.Name, Geometry: geometry(v), Access: active(s, v), Reserved: s.Reservations[id], Index: s.Index})
		for _, m := range all {
			luns[m.Host] = append(luns[m.Host], front.HostLUN{Volume: id, LUN: m.LUN, ReadOnly: m.ReadOnly})
		}
	}
	for _, h := range s.Hosts {
		hosts = append(hosts, front.Host{Name: h.Name, IQNs: h.IQNs, LUNs: luns[h.Name], Paths: front.Paths(h.Paths),
			CHAP: iscsi.Credentials{Name: h.CHAPUser, Secret: h.CHAPSecret}, Own: iscsi.Credentials{Name: h.MutualUser, Secret: h.MutualSecret}})
	}
	return hosts, volumes
}

// exports are the catalog's.
func exports(s *catalog.State) (out []front.Export) {
	for id, e := range s.Exports {
		v, ok := s.Volumes[id]
		if !ok {
			continue
		}
		out = append(out, front.Export{Volume: id, Name: v.Name, Geometry: geometry(v), LUN: e.LUN, Initiators: e.Initiators, Paths: front.Paths(e.Paths),
			CHAP: iscsi.Credentials{Name: e.CHAPUser, Secret: e.CHAPSecret}, Access: active(s, v), Reserved: s.Reservations[id], Index: s.Index})
	}
	return out
}
