package appliance

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/filetree"
	"pmsapp/nfs"
)

// shareNamed finds a share.
func (n *node) shareNamed(name string) (catalog.Volume, error) {
	v, err := n.volumeNamed(name)
	if errors.Is(err, api.ErrNotFound) {
		return v, api.Errorf(api.ErrNotFound, "pmsapp share list shows them", "there is no share %q", name)
	}
	if err == nil && !v.Share {
		err = api.Errorf(api.ErrConflict, "pmsapp share list shows the shares", "%s is a volume for LUNs, and no share", v.Name)
	}
	return v, err
}

// CreateShare implements api.Backend.
func (n *node) CreateShare(ctx context.Context, request string, w api.NewVolume) (api.Share, error) {
	w.Logical = filetree.Block
	v, err := n.createVolume(ctx, request, w, true)
	if err != nil {
		return api.Share{}, err
	}
	n.waitOpen(ctx, v.Name)
	return n.Share(ctx, v.Name)
}

// openLimit is how long the creation of a share waits for it to be open: what follows is its export, which needs that.
const openLimit = 5 * time.Second

func (n *node) waitOpen(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if v, ok := n.cluster.State().VolumeNamed(name); !ok || n.door.shares.Open(v.ID) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return // the answer says that it is not open
		}
	}
}

// DeleteShare implements api.Backend.
func (n *node) DeleteShare(ctx context.Context, request, name string, purge bool) error {
	v, err := n.shareNamed(name)
	if err != nil {
		return err
	}
	return n.DeleteVolume(ctx, request, v.ID.String(), purge)
}

// Shares implements api.Backend.
func (n *node) Shares(context.Context) ([]api.Share, error) {
	st := n.cluster.State()
	all := []api.Share{}
	for _, v := range adapt.Volumes(st) {
		if v.Share {
			s, err := n.share(st, v)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// Share implements api.Backend.
func (n *node) Share(_ context.Context, name string) (api.Share, error) {
	v, err := n.shareNamed(name)
	if err != nil {
		return api.Share{}, err
	}
	st := n.cluster.State()
	s, err := n.share(st, v)
	if err != nil || st.Trees[v.ID] == nil {
		return s, err
	}
	for _, u := range st.Trees[v.ID].Usages() {
		s.Usages = append(s.Usages, api.Usage(u))
	}
	slices.SortFunc(s.Usages, func(a, b api.Usage) int { return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Name, b.Name)) })
	return s, nil
}

func (n *node) share(st *catalog.State, v catalog.Volume) (s api.Share, err error) {
	if s.Volume, err = n.show(v.ID); err != nil {
		return s, err
	}
	s.Path, s.Open, s.Rules, s.Servers = "/"+v.Name, n.door.shares.Open(v.ID), []api.ShareRule{}, shareServers(adapt.Nodes(st), n.cfg.Virtual.Portal)
	if s.Warnings = nil; len(st.Shares[v.ID].Rules) > 0 {
		s.Warnings = append(shareWarnings(adapt.Nodes(st), n.cfg.Virtual.Portal != ""), lonelyMounts(s.Servers, n.cfg.Virtual.Portal != "")...)
	}
	if t := st.Trees[v.ID]; t != nil {
		free, ahead, freed := t.Space()
		s.Used, s.Files = t.Size()-free-ahead-freed, t.Files()
	}
	for _, r := range st.Shares[v.ID].Rules {
		s.Rules = append(s.Rules, api.ShareRule{Client: r.Clients.String(), ReadOnly: r.ReadOnly, Squash: string(r.Squash), AnonUID: r.AnonUID, AnonGID: r.AnonGID})
	}
	return s, nil
}

// rule checks a rule.
func rule(r api.ShareRule) (catalog.ShareRule, error) {
	p, err := netip.ParsePrefix(r.Client)
	if a, aerr := netip.ParseAddr(r.Client); aerr == nil {
		p, err = a.Prefix(a.BitLen())
	}
	if err != nil || p.Addr().Is4In6() {
		return catalog.ShareRule{}, api.Errorf(api.ErrInvalid, "", "client: %q is neither an address nor a prefix, as in 192.0.2.0/24", r.Client)
	}
	out := catalog.ShareRule{Clients: p.Masked(), ReadOnly: r.ReadOnly, Squash: catalog.Squash(cmp.Or(r.Squash, "root")), AnonUID: r.AnonUID, AnonGID: r.AnonGID}
	switch out.Squash {
	case catalog.SquashNone, catalog.SquashRoot, catalog.SquashAll:
		return out, nil
	}
	return out, api.Errorf(api.ErrInvalid, "", "squash: %q is not none, root or all", r.Squash)
}

// ExportShare implements api.Backend.
func (n *node) ExportShare(ctx context.Context, request, name string, w api.ShareRule) (api.Share, error) {
	r, err := rule(w)
	if err != nil {
		return api.Share{}, err
	}
	v, err := n.shareNamed(name)
	if err != nil {
		return api.Share{}, err
	}
	n.ruling.Lock()
	defer n.ruling.Unlock()
	rules := withoutRule(n.cluster.State().Shares[v.ID].Rules, r.Clients)
	if err := n.setRules(ctx, request, v, append(rules, r)); err != nil {
		return api.Share{}, err
	}
	return n.Share(ctx, v.Name)
}

// UnexportShare implements api.Backend.
func (n *node) UnexportShare(ctx context.Context, request, name, client string) error {
	v, err := n.shareNamed(name)
	if err != nil {
		return err
	}
	n.ruling.Lock()
	defer n.ruling.Unlock()
	old := n.cluster.State().Shares[v.ID].Rules
	var rules []catalog.ShareRule
	if client != "" {
		r, err := rule(api.ShareRule{Client: client})
		if err != nil {
			return err
		}
		rules = withoutRule(old, r.Clients)
	}
	if hint := withdrawHint(n.cluster.State(), v); hint != "" {
		return api.Errorf(api.ErrConflict, hint, "%s is not served", v.Name)
	}
	if len(rules) == len(old) {
		return api.Errorf(api.ErrNotFound, "pmsapp share show "+v.Name+" lists the rules", "%s is not exported so", v.Name)
	}
	return n.setRules(ctx, request, v, rules)
}

func withoutRule(rules []catalog.ShareRule, p netip.Prefix) []catalog.ShareRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r catalog.ShareRule) bool { return r.Clients == p })
}

// setRules changes an export. What the new rules forbid is admitted no more and has ended before they are committed (invariant 17).
func (n *node) setRules(ctx context.Context, request string, v catalog.Volume, rules []catalog.ShareRule) error {
	st := n.cluster.State()
	if _, exported := st.Shares[v.ID]; exported {
		undo := n.door.shares.Restrict(v.ID, nfsRules(rules))
		defer undo()
		if err := n.drainShare(ctx, v); err != nil {
			return err
		}
	}
	if len(rules) == 0 {
		return n.propose(ctx, catalog.Command{Request: request, Body: catalog.UnexportShare{Epoch: st.Epoch, Volume: v.ID}})
	}
	return n.propose(ctx, catalog.Command{Request: request, Body: catalog.ExportShare{Epoch: st.Epoch, Export: catalog.ShareExport{Volume: v.ID, Rules: rules}}})
}

// drainShare waits for the calls of clients that were admitted to a share before its rules were restricted.
func (n *node) drainShare(ctx context.Context, v catalog.Volume) error {
	if n.door.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := n.door.server.Drain(ctx, v.ID); err != nil {
		return api.Errorf(api.ErrConflict, "repeat the command in a few seconds", "%s: calls of clients are still under way", v.Name)
	}
	return nil
}

// nfsRules are rules as the front door has them.
func nfsRules(rules []catalog.ShareRule) (out []nfs.Rule) {
	squash := map[catalog.Squash]nfs.Squash{catalog.SquashNone: nfs.SquashNone, catalog.SquashRoot: nfs.SquashRoot, catalog.SquashAll: nfs.SquashAll}
	for _, r := range rules {
		out = append(out, nfs.Rule{Clients: r.Clients, ReadOnly: r.ReadOnly, Squash: squash[r.Squash], AnonUID: r.AnonUID, AnonGID: r.AnonGID})
	}
	return out
}
