package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/replica"
	"pmsapp/replication/truth"
)

var _ api.Backend = (*node)(nil)

// Leading implements api.Backend.
func (n *node) Leading() bool { return n.cluster.IsLeader() }

// IsSelf implements api.Backend.
func (n *node) IsSelf(name string) bool {
	return name == n.cfg.Name || name == n.cluster.Self().String()
}

// Forward implements api.Backend.
func (n *node) Forward(ctx context.Context, to string, c api.Call) (reply api.Reply, err error) {
	if to == "" {
		if err = n.cluster.CallLeader(ctx, "api", c, &reply); err != nil {
			return reply, api.Errorf(api.ErrNoLeader, "repeat the command in a few seconds; pmsapp status tells more",
				"the leader did not answer: %v", err)
		}
		return reply, nil
	}
	m, err := n.named(to)
	if err != nil {
		return reply, err
	}
	if err = n.cluster.Call(ctx, m.ID, "api", c, &reply); err != nil {
		return reply, api.Errorf(api.ErrNoLeader, "", "node %s did not answer: %v", to, err)
	}
	return reply, nil
}

// named finds a node.
func (n *node) named(name string) (catalog.Node, error) {
	st := n.cluster.State()
	if m, ok := st.NodeNamed(name); ok {
		return m, nil
	}
	if id, err := ids.Parse(name); err == nil {
		if m, ok := st.Nodes[ids.Node(id)]; ok {
			return m, nil
		}
	}
	return catalog.Node{}, api.Errorf(api.ErrNotFound, "pmsapp node list shows them", "there is no node %q", name)
}

// volumeNamed finds a volume.
func (n *node) volumeNamed(name string) (catalog.Volume, error) {
	st := n.cluster.State()
	if v, ok := st.VolumeNamed(name); ok {
		return v, nil
	}
	if id, err := ids.Parse(name); err == nil {
		if v, ok := st.Volumes[ids.Volume(id)]; ok {
			return v, nil
		}
	}
	return catalog.Volume{}, api.Errorf(api.ErrNotFound, "pmsapp volume list shows them", "there is no volume %q", name)
}

// plainly is an error's text without the names of packages, for which an admin has no use.
func plainly(err error) string {
	return strings.Join(slices.DeleteFunc(strings.Split(err.Error(), ": "), func(s string) bool {
		return slices.Contains([]string{"catalog", "cluster", "reign", "peer", "replica", "remote", "initiator"}, s)
	}), ": ")
}

// told turns errors of the packages below into such that an admin can use.
func told(err error) error {
	var e *api.Error
	plain := func(kind *api.Error, hint string) error {
		return api.Errorf(kind, hint, "%s", plainly(err))
	}
	switch {
	case err == nil || errors.As(err, &e):
		return err
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrNoLeader), errors.Is(err, cluster.ErrUnknown),
		errors.Is(err, reign.ErrNotLeading), errors.Is(err, truth.ErrUnknown), errors.Is(err, reign.ErrClosed):
		return api.Errorf(api.ErrNoLeader, "repeat the command in a few seconds", "the leader has changed: %v", err)
	case errors.Is(err, catalog.ErrNoHost):
		return plain(api.ErrNotFound, "pmsapp host list shows them")
	case errors.Is(err, catalog.ErrNoReplica):
		return plain(api.ErrNotFound, "pmsapp volume show tells where its replicas are")
	case errors.Is(err, catalog.ErrIsShare):
		return plain(api.ErrConflict, "a share is no LUN: pmsapp share export")
	case errors.Is(err, catalog.ErrNoVolume), errors.Is(err, catalog.ErrNoNode),
		errors.Is(err, reign.ErrUnknownVolume):
		return plain(api.ErrNotFound, "pmsapp status and pmsapp volume show tell what there is")
	case errors.Is(err, catalog.ErrNameTaken):
		return plain(api.ErrConflict, "choose another name")
	case errors.Is(err, catalog.ErrInUse), errors.Is(err, catalog.ErrLimit), errors.Is(err, catalog.ErrOldNode), errors.Is(err, reign.ErrNoTarget):
		return plain(api.ErrConflict, "")
	case errors.Is(err, catalog.ErrNotServed), errors.Is(err, reign.ErrNotServed):
		return plain(api.ErrConflict, "pmsapp status tells what it waits for")
	case errors.Is(err, reign.ErrLast):
		return plain(api.ErrConflict, "wait until another is in sync, or delete the volume")
	case errors.Is(err, reign.ErrNoPlace):
		return plain(api.ErrConflict, "add a pool or a node, or name fewer replicas; pmsapp pool list shows the free space")
	case errors.Is(err, peer.ErrNoSpace):
		return plain(api.ErrConflict, "the pool is full, or its file system has no files so large; XFS has; pmsapp pool list shows the free space")
	case errors.Is(err, reign.ErrServed):
		return plain(api.ErrConflict, "")
	case errors.Is(err, reign.ErrIncomplete):
		return plain(api.ErrConflict, "if there is no better one, --incomplete accepts it")
	case errors.Is(err, reign.ErrUnusable):
		return plain(api.ErrConflict, "pmsapp volume show tells where the replicas are")
	case errors.Is(err, reign.ErrBusy), errors.Is(err, reign.ErrEarly), errors.Is(err, reign.ErrTimeout):
		return plain(api.ErrConflict, "repeat the command in a few seconds")
	case errors.Is(err, catalog.ErrInvalid), errors.Is(err, reign.ErrInvalid):
		return plain(api.ErrInvalid, "")
	case errors.Is(err, replica.ErrNotEmpty):
		return plain(api.ErrConflict, "empty the directory, or name another")
	}
	return err
}

// RemoveNode implements api.Backend.
func (n *node) RemoveNode(ctx context.Context, request, name string) error {
	m, err := n.named(name)
	if err != nil {
		return err
	}
	if m.ID == n.cluster.Self() {
		return api.Errorf(api.ErrConflict, "pmsapp leader transfer first", "%s leads", name)
	}
	err = n.cluster.RemoveNode(ctx, request, m.ID)
	if errors.Is(err, catalog.ErrInUse) {
		return api.Errorf(api.ErrConflict, neededHint(n.cluster.State(), m),
			"%s is needed: %s", m.Name, strings.TrimSuffix(err.Error(), ": "+catalog.ErrInUse.Error()))
	}
	return told(err)
}

// neededHint says how a node can be removed that has replicas in in-sync sets. Where it has the only one, stopping it does not help.
func neededHint(st *catalog.State, m catalog.Node) string {
	only := func(v catalog.Volume) bool {
		return len(v.InSync) > 0 && !slices.ContainsFunc(v.InSync, func(p catalog.Place) bool { return p.Node != m.ID })
	}
	for _, v := range adapt.Volumes(st) {
		if v.Foreign && slices.ContainsFunc(v.InSync, func(p catalog.Place) bool { return p.Node == m.ID }) {
			return fmt.Sprintf("since the catalog was restored %s waits: have it go on with a replica elsewhere (pmsapp volume force %s), or give it up (pmsapp volume withdraw %s, if it is exported, and pmsapp volume delete %s)", v.Name, v.Name, v.Name, v.Name)
		}
		if only(v) {
			return fmt.Sprintf("it has the only copy of %s: start it and drain it (pmsapp node drain %s), or, if it never comes back, go on with an older replica "+
				"(pmsapp volume force %s) or give the data up (pmsapp volume withdraw %s, if it is exported, and pmsapp volume delete %s --purge)", v.Name, m.Name, v.Name, v.Name, v.Name)
		}
	}
	for _, t := range st.Trash {
		if only(t.Volume) {
			return fmt.Sprintf("pmsapp volume purge %s gives it up; pmsapp volume restore %s brings it back, and pmsapp node drain %s moves it", t.Volume.Name, t.Volume.Name, m.Name)
		}
	}
	return "stop pmsapp there first: its replicas leave the in-sync sets"
}

// tokenValid is how long a join token is good for.
const tokenValid = time.Hour

// NewToken implements api.Backend.
func (n *node) NewToken(ctx context.Context, _ string, t api.NewToken) (api.Token, error) {
	s, until, err := n.cluster.NewToken(ctx, t.Witness, tokenValid)
	return api.Token{Token: s, Expires: until}, told(err)
}

// AddPool implements api.Backend. The pool is known to the cluster when it returns.
func (n *node) AddPool(ctx context.Context, _ string, p api.NewPool) (api.Pool, error) {
	if n.cluster.Witness() {
		return api.Pool{}, api.Errorf(api.ErrConflict, "", "%s is a witness: it has no pools", n.cfg.Name)
	}
	if err := checkPath(p.Path); err != nil {
		return api.Pool{}, err
	}
	id, err := n.pools.add(p.Path)
	if err != nil {
		hint := ""
		if errors.Is(err, replica.ErrInUse) {
			hint = "another node on this machine may have it"
		}
		return api.Pool{}, api.Errorf(api.ErrConflict, hint, "%v", err)
	}
	n.cluster.Refresh()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for !n.knownPool(id) {
		select {
		case <-ctx.Done():
			return api.Pool{}, api.Errorf(api.ErrNoLeader, "", "%s is a pool, and the cluster will know of it as soon as a node leads", p.Path)
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, q := range n.ownPools() {
		if q.ID == id.String() {
			return q, nil
		}
	}
	return api.Pool{}, fmt.Errorf("pool %s went away meanwhile", p.Path)
}

func (n *node) knownPool(id ids.Pool) bool {
	for _, p := range n.cluster.State().Nodes[n.cluster.Self()].Pools {
		if p.ID == id {
			return true
		}
	}
	return false
}

// Export implements api.Backend: through the leader that serves the volume (invariant 17).
func (n *node) Export(ctx context.Context, request string, w api.NewLUN) (api.LUN, error) {
	v, err := n.volumeNamed(w.Volume)
	if err != nil {
		return api.LUN{}, err
	}
	if v.Share {
		return api.LUN{}, api.Errorf(api.ErrConflict, "pmsapp share export "+v.Name, "%s is a share", v.Name)
	}
	e := catalog.Export{Volume: v.ID, LUN: front.DefaultLUN, CHAPUser: w.CHAPUser, CHAPSecret: []byte(w.CHAPSecret), Paths: storedPaths(w.Paths)}
	if !knownPaths(w.Paths) {
		return api.LUN{}, errPaths(w.Paths)
	}
	for _, s := range w.Initiators {
		name, err := front.CheckInitiator(s)
		if err != nil {
			return api.LUN{}, api.Errorf(api.ErrInvalid, "", "initiators: %v", err)
		}
		e.Initiators = append(e.Initiators, name)
	}
	if (w.CHAPUser == "") != (w.CHAPSecret == "") || w.CHAPSecret != "" && (len(w.CHAPSecret) < 12 || len(w.CHAPSecret) > 255) {
		return api.LUN{}, api.Errorf(api.ErrInvalid, "", "CHAP needs a name and a secret of 12 to 255 characters")
	}
	if w.CHAPUser != "" && len(w.CHAPUser) > 255 {
		return api.LUN{}, api.Errorf(api.ErrInvalid, "", "chap_user: longer than 255 characters")
	}
	if old, exported := n.cluster.State().Exports[v.ID]; exported && !sameExport(old, e) {
		if !w.Change {
			return api.LUN{}, api.Errorf(api.ErrConflict, "say --change (API: \"change\": true) to replace its initiators and CHAP; hosts' sessions end and begin anew",
				"%s is exported already, to others or with other credentials", v.Name)
		}
		undo, err := n.endSessions(ctx, v) // whoever it forbids writes nothing afterwards (invariant 17)
		if err != nil {
			return api.LUN{}, err
		}
		defer undo()
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.SetExport{Epoch: n.cluster.State().Epoch, Export: e}}); err != nil {
		return api.LUN{}, err
	}
	// The target is there before the admin can tell a host of it, which would be refused for good.
	if err := n.service.applyExports(); err != nil {
		return api.LUN{}, err
	}
	st := n.cluster.State()
	v, ok := st.Volumes[v.ID]
	if !ok {
		return api.LUN{}, api.Errorf(api.ErrConflict, "", "the volume was deleted meanwhile")
	}
	return n.lun(st, v, e), nil
}

func sameExport(a, b catalog.Export) bool {
	return a.LUN == b.LUN && a.Paths == b.Paths && a.CHAPUser == b.CHAPUser && bytes.Equal(a.CHAPSecret, b.CHAPSecret) && slices.Equal(a.Initiators, b.Initiators)
}

// Unexport implements api.Backend. The hosts' sessions end, with what they brought, before the export does (invariant 17).
func (n *node) Unexport(ctx context.Context, request, name string) error {
	v, err := n.volumeNamed(name)
	if err != nil {
		return err
	}
	st := n.cluster.State()
	if _, exported := st.Exports[v.ID]; !exported {
		return api.Errorf(api.ErrNotFound, "pmsapp lun list shows what is", "%s is not exported", v.Name)
	}
	if hint := withdrawHint(st, v); hint != "" {
		return api.Errorf(api.ErrConflict, hint, "%s is not served", v.Name)
	}
	undo, err := n.endSessions(ctx, v)
	if err != nil {
		return err
	}
	defer undo()
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.RemoveExport{Epoch: st.Epoch, Volume: v.ID}}); err != nil {
		return err
	}
	// The target goes before logins are allowed again.
	return n.service.applyExports()
}

// endSessions ends the hosts' sessions with a volume before its export changes; undo allows logins again.
func (n *node) endSessions(ctx context.Context, v catalog.Volume) (undo func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if undo, err = n.hosts.Close(ctx, v.ID); err != nil {
		return nil, api.Errorf(api.ErrConflict, "repeat the command in a few seconds", "%s: %v", v.Name, err)
	}
	return undo, nil
}

// propose proposes an admin's command; one whose outcome is unknown is repeated while this node leads: its request id makes
// that harmless, and the answer certain.
func (n *node) propose(ctx context.Context, c catalog.Command) error {
	for {
		_, err := n.cluster.Propose(ctx, c)
		if !errors.Is(err, cluster.ErrUnknown) || !n.cluster.IsLeader() || ctx.Err() != nil {
			return told(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Transfer implements api.Backend.
func (n *node) Transfer(ctx context.Context, _ string, t api.Transfer) error {
	var to ids.Node
	if t.To != "" {
		m, err := n.named(t.To)
		if err != nil {
			return err
		}
		switch {
		case m.ID == n.cluster.Self():
			return nil
		case m.Witness:
			return api.Errorf(api.ErrConflict, "", "%s is a witness: it never serves", m.Name)
		}
		to = m.ID
	}
	return told(n.reign.HandOver(ctx, to))
}

// settleLimit bounds settleVolumes: a volume that waits for a member is not waited for.
const settleLimit = 5 * time.Second

// settleVolumes has the volumes that are served here finish their I/O, make durable what they have acknowledged, and clear their marks, as a
// hand-over does; from then on they hold what comes. So whoever leads next, with whichever of their replicas, finds all of it, and the
// power may fail.
func (n *node) settleVolumes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var work sync.WaitGroup
	for id, m := range n.service.open() {
		work.Go(func() {
			if err := m.Drain(ctx); err != nil {
				n.log.Warn("a volume was closed with I/O under way", "volume", id.String(), "err", err)
			}
		})
	}
	work.Wait()
}

// ShutdownCluster implements api.Backend: all volumes are closed here first, so that any node may come back first.
func (n *node) ShutdownCluster(ctx context.Context, _ string) error {
	n.service.close()
	n.settleVolumes(ctx)
	n.reign.Follow()
	n.hosts.StandbyAll()
	var failed error
	for id, m := range n.cluster.State().Nodes {
		if id == n.cluster.Self() {
			continue
		}
		cctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if err := n.cluster.Call(cctx, id, "stop", struct{}{}, nil); err != nil {
			failed = errors.Join(failed, fmt.Errorf("node %s could not be told: %w", m.Name, err))
		}
		cancel()
	}
	n.stopSoon()
	if failed != nil {
		return api.Errorf(api.ErrInternal, "stop them there", "all volumes are closed, this node stops, but: %v", failed)
	}
	return nil
}
