package appliance

import (
	"cmp"
	"context"
	"fmt"
	stdmaps "maps"
	"slices"
	"sync"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/front"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/target"
)

// AddHost implements api.Backend.
func (n *node) AddHost(ctx context.Context, request string, w api.NewHost) (api.Host, error) {
	if err := config.CheckName(w.Name); err != nil {
		return api.Host{}, api.Errorf(api.ErrInvalid, "", "name: %v", err)
	}
	h := catalog.Host{Name: w.Name, CHAPUser: w.CHAPUser, CHAPSecret: []byte(w.CHAPSecret), MutualUser: w.MutualUser, MutualSecret: []byte(w.MutualSecret),
		Paths: storedPaths(w.Paths)}
	if !knownPaths(w.Paths) {
		return api.Host{}, errPaths(w.Paths)
	}
	for _, s := range w.IQNs {
		name, err := front.CheckInitiator(s)
		if err != nil {
			return api.Host{}, api.Errorf(api.ErrInvalid, "", "iqns: %v", err)
		}
		h.IQNs = append(h.IQNs, name)
	}
	for _, c := range []struct{ key, user, secret string }{{"chap", w.CHAPUser, w.CHAPSecret}, {"mutual", w.MutualUser, w.MutualSecret}} {
		if (c.user == "") != (c.secret == "") || c.secret != "" && (len(c.secret) < 12 || len(c.secret) > 255) || len(c.user) > 255 {
			return api.Host{}, api.Errorf(api.ErrInvalid, "", "%s: CHAP needs a name and a secret of 12 to 255 characters", c.key)
		}
	}
	if w.MutualUser != "" && (w.CHAPUser == "" || w.MutualSecret == w.CHAPSecret) {
		return api.Host{}, api.Errorf(api.ErrInvalid, "one secret for both directions would prove nothing", "mutual CHAP needs CHAP, with another secret")
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.PutHost{Host: h}}); err != nil {
		return api.Host{}, err
	}
	return n.host(n.cluster.State(), h), n.service.applyExports()
}

// pathsOf fills in the default, which storedPaths leaves out: a repeated call is the same whether it names it or not.
func pathsOf(p string) string { return cmp.Or(p, string(front.PathsVirtual)) }

func storedPaths(p string) string {
	if p == string(front.PathsVirtual) {
		return ""
	}
	return p
}

func knownPaths(p string) bool {
	switch front.Paths(pathsOf(p)) {
	case front.PathsVirtual, front.PathsNodes, front.PathsRedirect:
		return true
	}
	return false
}

func errPaths(p string) error {
	return api.Errorf(api.ErrInvalid, "virtual: by the virtual address; nodes: by every node's own, with multipath; redirect: by any node's own, without",
		"paths: %q is none of virtual, nodes and redirect", p)
}

// RemoveHost implements api.Backend.
func (n *node) RemoveHost(ctx context.Context, request, name string) error {
	st := n.cluster.State()
	for _, v := range adapt.Volumes(st) {
		if slices.ContainsFunc(st.Maps[v.ID], func(m catalog.Mapping) bool { return m.Host == name }) {
			return api.Errorf(api.ErrConflict, fmt.Sprintf("pmsapp lun unmap %s %s first", v.Name, name), "%s is mapped to %s", v.Name, name)
		}
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.RemoveHost{Name: name}}); err != nil {
		return err
	}
	return n.service.applyExports()
}

// host describes a host, without its sessions.
func (n *node) host(st *catalog.State, h catalog.Host) api.Host {
	out := api.Host{Name: h.Name, IQNs: h.IQNs, CHAPUser: h.CHAPUser, MutualUser: h.MutualUser, Paths: pathsOf(h.Paths), LUNs: []api.Map{}, Sessions: []api.Session{}}
	for id, all := range st.Maps {
		for _, m := range all {
			if m.Host == h.Name {
				out.LUNs = append(out.LUNs, n.lunMap(st, id, m))
			}
		}
	}
	slices.SortFunc(out.LUNs, func(a, b api.Map) int { return cmp.Compare(a.LUN, b.LUN) })
	return out
}

func (n *node) lunMap(st *catalog.State, id ids.Volume, m catalog.Mapping) api.Map {
	return api.Map{Volume: st.Volumes[id].Name, Host: m.Host, LUN: m.LUN, ReadOnly: m.ReadOnly, Target: front.CommonName(n.cluster.ID()),
		Portals: n.portals(st)}
}

// Hosts implements api.Backend: those of the catalog, with the sessions that the nodes have.
func (n *node) Hosts(ctx context.Context) ([]api.Host, error) {
	st := n.cluster.State()
	out := []api.Host{}
	sessions := n.sessionsOf(ctx, 2*time.Second)
	for _, name := range slices.Sorted(stdmaps.Keys(st.Hosts)) {
		h := n.host(st, st.Hosts[name])
		for _, s := range sessions {
			if slices.Contains(h.IQNs, s.Initiator) {
				h.Sessions = append(h.Sessions, s)
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// MapLUN implements api.Backend: through the leader that serves the volume (invariant 17).
func (n *node) MapLUN(ctx context.Context, request string, w api.NewMap) (api.Map, error) {
	v, err := n.volumeNamed(w.Volume)
	if err != nil {
		return api.Map{}, err
	}
	st := n.cluster.State()
	if err := mayMap(st, v, w); err != nil {
		return api.Map{}, err
	}
	m := catalog.Mapping{Host: w.Host, ReadOnly: w.ReadOnly}
	switch i := slices.IndexFunc(st.Maps[v.ID], func(o catalog.Mapping) bool { return o.Host == w.Host }); {
	case w.LUN != nil:
		m.LUN = *w.LUN
	case i >= 0:
		m.LUN = st.Maps[v.ID][i].LUN // a repeated call
	default:
		m.LUN = st.FreeLUN(w.Host)
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.MapLUN{Epoch: st.Epoch, Volume: v.ID, Map: m}}); err != nil {
		return api.Map{}, err
	}
	// It is there before the admin can tell the host of it.
	return n.lunMap(n.cluster.State(), v.ID, m), n.service.applyExports()
}

// mayMap refuses what the catalog would refuse, and says what to do.
func mayMap(st *catalog.State, v catalog.Volume, w api.NewMap) error {
	_, exported := st.Exports[v.ID]
	_, known := st.Hosts[w.Host]
	switch {
	case v.Share:
		return api.Errorf(api.ErrConflict, "pmsapp share export "+v.Name, "%s is a share", v.Name)
	case exported:
		return api.Errorf(api.ErrConflict, "pmsapp lun unexport "+v.Name+" first", "%s is exported to all that its export names", v.Name)
	case !known:
		return api.Errorf(api.ErrNotFound, "pmsapp host add makes one", "there is no host %q", w.Host)
	}
	for _, o := range st.Maps[v.ID] {
		if o.Host == w.Host && w.LUN != nil && o.LUN != *w.LUN {
			return api.Errorf(api.ErrConflict, fmt.Sprintf("pmsapp lun unmap %s %s first", v.Name, w.Host), "%s is mapped to %s as LUN %d already", v.Name, w.Host, o.LUN)
		}
	}
	return nil
}

// UnmapLUN implements api.Backend. The host's sessions end, with what they brought, before the map does (invariant 17).
func (n *node) UnmapLUN(ctx context.Context, request, volume, host string) error {
	v, err := n.volumeNamed(volume)
	if err != nil {
		return err
	}
	st := n.cluster.State()
	if !slices.ContainsFunc(st.Maps[v.ID], func(m catalog.Mapping) bool { return m.Host == host }) {
		return api.Errorf(api.ErrNotFound, "pmsapp lun list shows the maps", "%s is not mapped to %s", v.Name, host)
	}
	if hint := withdrawHint(st, v); hint != "" {
		return api.Errorf(api.ErrConflict, hint, "%s is not served", v.Name)
	}
	cctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	undo, err := n.hosts.CloseHost(cctx, host)
	cancel()
	if err != nil {
		return api.Errorf(api.ErrConflict, "repeat the command in a few seconds", "%s: %v", host, err)
	}
	defer undo()
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.UnmapLUN{Epoch: st.Epoch, Volume: v.ID, Host: host}}); err != nil {
		return err
	}
	// The LUN goes before logins are allowed again.
	return n.service.applyExports()
}

// Maps implements api.Backend.
func (n *node) Maps(context.Context) ([]api.Map, error) {
	st := n.cluster.State()
	out := []api.Map{}
	for id, all := range st.Maps {
		for _, m := range all {
			out = append(out, n.lunMap(st, id, m))
		}
	}
	slices.SortFunc(out, func(a, b api.Map) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Host, b.Host))
	})
	return out, nil
}

// handleSessions tells another node who is logged in here.
func (n *node) handleSessions(ctx context.Context, _ ids.Node, _ struct{}) ([]api.Session, error) {
	if err := n.up(ctx); err != nil {
		return nil, err
	}
	return n.ownSessions(), nil
}

func (n *node) ownSessions() []api.Session {
	all := []api.Session{}
	for _, s := range n.target.Sessions() {
		if s.Login.Discovery || front.IsNodeTarget(s.Login.Target) {
			continue
		}
		name, _ := front.CheckInitiator(s.Login.Initiator)
		all = append(all, api.Session{Node: n.cfg.Name, Initiator: name, Target: s.Login.Target, Portal: s.Login.Portal.String(),
			Remote: s.Login.Remote.String(), Since: s.Since, CHAP: s.Login.User != "", HeaderDigest: s.Params.HeaderDigest,
			DataDigest: s.Params.DataDigest, ImmediateData: s.Params.ImmediateData, InitialR2T: s.Params.InitialR2T,
			FirstBurst: s.Params.FirstBurst, MaxBurst: s.Params.MaxBurst, Commands: s.Tasks,
			Waits: api.Waits{Volume: s.Waits.Unit, Data: s.Waits.Data, Order: s.Waits.Order, Memory: s.Waits.Memory, Answers: s.Waits.Taking,
				OldestSeconds: s.Waits.Oldest.Seconds()}})
	}
	slices.SortFunc(all, func(a, b api.Session) int {
		return cmp.Or(cmp.Compare(a.Initiator, b.Initiator), a.Since.Compare(b.Since))
	})
	return all
}

// sessionsOf asks all nodes that seem to be there for their hosts' sessions, all at once.
func (n *node) sessionsOf(ctx context.Context, limit time.Duration) []api.Session {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	all := n.ownSessions()
	var mu sync.Mutex
	n.each(ctx, func(ctx context.Context, id ids.Node) error {
		var s []api.Session
		err := n.cluster.Call(ctx, id, "sessions", struct{}{}, &s)
		mu.Lock()
		all = append(all, s...)
		mu.Unlock()
		return err
	})
	return all
}

// each calls f for all other storage nodes that seem to be there, at once, and returns the errors by node.
func (n *node) each(ctx context.Context, f func(context.Context, ids.Node) error) map[ids.Node]error {
	failed := map[ids.Node]error{}
	var (
		mu   sync.Mutex
		work sync.WaitGroup
	)
	opinions := n.cluster.Opinions()
	for id, o := range n.cluster.State().Nodes {
		if id == n.cluster.Self() || o.Witness {
			continue
		}
		if opinions[id] == cluster.Dead {
			failed[id] = fmt.Errorf("%s does not answer", o.Name)
			continue
		}
		work.Go(func() {
			if err := f(ctx, id); err != nil {
				mu.Lock()
				failed[id] = err
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return failed
}

// refusals tells of refused logins, within bounds.
type refusals struct {
	mu      sync.Mutex
	telling front.Telling
}

// refused makes an event of a login that was refused.
func (n *node) refused(l target.Login, err error) {
	if front.IsNodeTarget(l.Target) || !n.hosts.Refused(l, err) {
		return
	}
	n.refusals.mu.Lock()
	tell := n.refusals.telling.Tell(l.Initiator+" "+l.Target+" "+l.Remote.Addr().String(), time.Now())
	n.refusals.mu.Unlock()
	if !tell {
		return
	}
	n.events.add(catalog.Event{Kind: "login-refused", Node: n.cluster.Self(),
		Text: fmt.Sprintf("%.223s at %s may not use %.223s: %v", l.Initiator, l.Remote.Addr(), l.Target, err)})
}
