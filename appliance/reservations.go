package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pmsapp/appliance/front"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/internal/outcome"
	"pmsapp/internal/reserve"
	"pmsapp/target/scsi"
)

// reservations connects the LUs' commands about reservations with the catalog, and with the node that serves. Its methods are safe
// for concurrent use.
type reservations struct {
	cluster *cluster.Cluster
	hosts   *front.Hosts // set before anything is asked
	virtual bool         // there is a virtual address

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func newReservations(c *cluster.Cluster, virtual bool) *reservations {
	r := &reservations{cluster: c, virtual: virtual}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// close ends what is under way. No session may be left that could ask.
func (r *reservations) close() {
	r.cancel()
	r.work.Wait()
}

// keeper keeps the reservations of a volume under an epoch. It is a scsi.Keeper.
type keeper struct {
	*reservations
	volume ids.Volume
	epoch  uint64
}

// Reservations implements scsi.Keeper.
func (k keeper) Reservations() (reserve.State, uint64) {
	s := k.cluster.State()
	return s.Reservations[k.volume], s.Index
}

// Ports implements scsi.Keeper.
func (k keeper) Ports() []uint16 { return targetPorts(k.cluster.State(), k.virtual) }

// targetPorts are those at which every LU is, in ascending order: one for each storage node, and the virtual one.
func targetPorts(s *catalog.State, virtual bool) (ports []uint16) {
	for _, n := range s.Nodes {
		if !n.Witness {
			ports = append(ports, n.Group)
		}
	}
	if virtual {
		ports = append(ports, front.VirtualGroup)
	}
	slices.Sort(ports)
	return ports
}

// groups are the target port groups of a volume.
func (r *reservations) groups(v ids.Volume) []scsi.PortGroup {
	s := r.cluster.State()
	return front.Groups(targetPorts(s, r.virtual), s.Nodes[s.Leader].Group, active(s, s.Volumes[v]))
}

// changeRetry is the pause before a change of unknown outcome is proposed again.
const changeRetry = 50 * time.Millisecond

// Change implements scsi.Keeper. A proposal of unknown outcome is repeated under the same request id, while this node leads under
// the epoch: then the answer is certain.
func (k keeper) Change(seq uint64, c reserve.Command, done func(error)) {
	cmd := catalog.Command{Request: ids.New().String(), Body: catalog.Reserve{Epoch: k.epoch, Volume: k.volume, Seq: seq, Change: c}}
	k.work.Go(func() {
		for unsure := false; ; unsure = true {
			_, err := k.cluster.Propose(k.ctx, cmd)
			switch {
			case err == nil:
			case errors.Is(err, catalog.ErrReservations) && !unsure:
				err = scsi.ErrJudged
			case errors.Is(err, cluster.ErrUnknown) && k.cluster.IsLeader() && k.cluster.State().Epoch == k.epoch && k.ctx.Err() == nil:
				select {
				case <-time.After(changeRetry):
				case <-k.ctx.Done():
				}
				continue
			}
			done(err)
			return
		}
	})
}

// Outcomes implements scsi.Keeper.
func (k keeper) Outcomes() (out []outcome.Outcome) {
	for _, o := range k.cluster.State().Outcomes[k.volume] {
		if o.Epoch < k.epoch {
			out = append(out, o.Outcome)
		}
	}
	return out
}

// Note implements scsi.Keeper. One that is repeated has the same effect: the notes of a volume come one after the other.
func (k keeper) Note(add, drop []outcome.Outcome, again func() bool, done func(error)) {
	cmd := catalog.Command{Body: catalog.Outcomes{Epoch: k.epoch, Volume: k.volume, Add: add, Drop: drop}}
	k.work.Go(func() {
		_, err := k.cluster.Propose(k.ctx, cmd)
		for errors.Is(err, cluster.ErrUnknown) && again() && k.cluster.IsLeader() && k.cluster.State().Epoch == k.epoch && k.ctx.Err() == nil {
			select {
			case <-time.After(changeRetry):
			case <-k.ctx.Done():
			}
			_, err = k.cluster.Propose(k.ctx, cmd)
		}
		done(err)
	})
}

// askLimit bounds how long another node may take for a command about reservations: longer than hold_timeout's default.
const askLimit = 45 * time.Second

// asked is the answer of the node that leads.
type asked struct {
	Served bool // it serves the volume; otherwise nothing was done
	Answer scsi.Answer
}

// elsewhere is a scsi.Elsewhere: the leader answers.
func (r *reservations) elsewhere(q scsi.Question, done func(scsi.Answer, bool, error)) (end func()) {
	ctx, cancel := context.WithTimeout(r.ctx, askLimit)
	r.work.Go(func() {
		defer cancel()
		var a asked
		err := r.cluster.CallLeader(ctx, "reserve", q, &a)
		sent := !errors.Is(err, cluster.ErrNoLeader) && !errors.Is(err, cluster.ErrNotLeader)
		if err == nil && !a.Served {
			sent, err = false, fmt.Errorf("the leader does not serve the volume: %w", front.ErrNotServed)
		}
		done(a.Answer, sent, err)
	})
	return cancel
}

// handle answers a node that was asked by a host.
func (r *reservations) handle(ctx context.Context, _ ids.Node, q scsi.Question) (asked, error) {
	type result struct {
		a   scsi.Answer
		err error
	}
	got := make(chan result, 1)
	end, served, err := r.hosts.Ask(q, func(a scsi.Answer, err error) { got <- result{a, err} })
	if err != nil || !served {
		return asked{}, err
	}
	defer end()
	select {
	case x := <-got:
		return asked{true, x.a}, x.err
	case <-ctx.Done():
		return asked{}, context.Cause(ctx)
	}
}
