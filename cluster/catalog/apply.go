package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
)

// Result is the outcome of a command that was applied.
type Result struct {
	Index   uint64
	Version uint64       `json:",omitempty"` // RemoveMember, AddMember
	InSync  []Place      `json:",omitempty"` // likewise
	Left    []ids.Volume `json:",omitempty"` // RemoveUnfenced, Served

	Tree []filetree.Result `json:"-"` // ChangeTree
}

// Apply applies an entry of the log. The state is the one before if err is not nil, but for its Index.
func Apply(s *State, index uint64, entry []byte) (*State, Result, error) {
	next := s.clone()
	next.Index = index
	c, since, err := decode(entry)
	if err != nil {
		return next, Result{}, err
	}
	if c.Request != "" {
		for _, r := range s.Requests {
			if r.ID == c.Request {
				return next, r.Result, nil
			}
		}
	}
	if since > s.oldest() {
		return next, Result{}, fmt.Errorf("%w: %s needs version %d, and it has %d", ErrOldNode, c.Body.kind(), since, s.oldest())
	}
	changed := next.clone()
	result, err := changed.apply(c)
	if err != nil {
		return next, Result{}, err
	}
	result.Index = index
	if c.Request != "" {
		changed.Requests = keep(changed.Requests, MaxRequests, Request{c.Request, result})
	}
	return changed, result, nil
}

// apply changes s, which is a clone, or returns an error; then s is thrown away.
func (s *State) apply(c Command) (Result, error) {
	switch b := c.Body.(type) {
	case Bootstrap:
		return Result{}, s.bootstrap(b)
	case PutNode:
		return Result{}, s.putNode(b.Node, b.Former)
	case RemoveNode:
		return Result{}, s.removeNode(b.Node)
	case AddToken:
		return Result{}, s.addToken(c, b.Token)
	case UseToken:
		return Result{}, s.useToken(c, b)
	case AddEvents:
		return Result{}, s.addEvents(b.Events)
	case TakeOver:
		return Result{}, s.takeOver(b)
	case RemoveUnfenced:
		return s.removeUnfenced(c, b)
	case Served:
		return s.served(b)
	case RemoveMember:
		return s.removeMember(c, b)
	case AddMember:
		return s.addMember(b)
	case CreateVolume:
		return Result{}, s.createVolume(c, b)
	case Withdraw:
		return Result{}, s.withdraw(b)
	case AdoptVolume:
		return Result{}, s.adoptVolume(b)
	case DeleteVolume:
		return Result{}, s.deleteVolume(c, b)
	case RestoreVolume:
		return Result{}, s.restoreVolume(b)
	case PurgeVolume:
		return Result{}, s.purgeVolume(b)
	case CountTrash:
		return Result{}, s.countTrash(b)
	case ForceVolume:
		return s.forceVolume(b)
	case BeginCopy:
		return Result{}, s.beginCopy(b)
	case AddReplica:
		return Result{}, s.addReplica(b)
	case RetireReplica:
		return Result{}, s.retireReplica(b)
	case DropReplica:
		return Result{}, s.dropReplica(b)
	case SetDrain:
		return Result{}, s.setDrain(b)
	case ResizeVolume:
		return Result{}, s.resizeVolume(b)
	case ForgetReplica:
		return Result{}, s.forgetReplica(b)
	case SetResync:
		return Result{}, s.setResync(b)
	case SetVolatile:
		return Result{}, s.setVolatile(b)
	case SetDurability:
		return Result{}, s.setDurability(b)
	case Scrubbed:
		return Result{}, s.scrubbed(b)
	case SetExport:
		return Result{}, s.setExport(b)
	case RemoveExport:
		return Result{}, s.removeExport(b)
	case ExportShare:
		return Result{}, s.exportShare(b)
	case UnexportShare:
		return Result{}, s.unexportShare(b)
	case ChangeTree:
		return s.changeTree(b)
	case Reserve:
		return Result{}, s.reserve(b)
	case PutHost:
		return Result{}, s.putHost(b.Host)
	case RemoveHost:
		return Result{}, s.removeHost(b.Name)
	case MapLUN:
		return Result{}, s.mapLUN(b)
	case UnmapLUN:
		return Result{}, s.unmapLUN(b)
	case Outcomes:
		return Result{}, s.outcomes(b)
	}
	return Result{}, ErrUnknownCommand
}

func (s *State) bootstrap(b Bootstrap) error {
	if !s.Cluster.IsZero() {
		if s.Cluster == b.Cluster {
			return nil
		}
		return ErrExists
	}
	if b.Cluster.IsZero() || b.Lineage.IsZero() || len(b.Admin) != 32 {
		return invalid("a cluster needs an id, a lineage and an admin token")
	}
	s.Cluster, s.Lineage, s.Admin = b.Cluster, b.Lineage, b.Admin
	return nil
}

func (s *State) putNode(n Node, former ids.Node) error {
	switch {
	case n.ID.IsZero() || n.Name == "" || len(n.Name) > 63:
		return invalid("a node needs an id and a name")
	case n.Version < 1 || len(n.Pools) > MaxPools || n.Witness && len(n.Pools) > 0:
		return invalid("node %s: version %d, %d pools", n.Name, n.Version, len(n.Pools))
	case slices.Contains(s.Removed, n.ID):
		return fmt.Errorf("node %s was removed: %w", n.Name, ErrNoNode)
	}
	if err := s.knowsRestored(n); err != nil {
		return err
	}
	for _, t := range []string{n.Address, n.API, n.Portal, n.PeerPortal, n.NFS, n.Portmap, n.Release} {
		if len(t) > MaxText {
			return invalid("node %s: an address of %d bytes", n.Name, len(t))
		}
	}
	for i, p := range n.Pools {
		if p.ID.IsZero() || len(p.Path) > 4096 || slices.ContainsFunc(n.Pools[:i], func(q Pool) bool { return q.ID == p.ID }) {
			return invalid("node %s: pool %s", n.Name, p.Path)
		}
	}
	s.keepDrains(&n)
	old, had := s.Nodes[n.ID]
	before := s.Nodes
	if f, ok := s.Nodes[former]; ok && former != n.ID {
		if s.Base != 0 && n.Witness && len(f.Pools) > 0 {
			return invalid("node %s was a storage node, with pools, and cannot come back as a witness", n.Name)
		}
		for _, p := range f.Pools { // those that are absent now too
			if !slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.ID }) {
				n.Pools = append(slices.Clone(n.Pools), p)
			}
		}
		if len(f.Pools) == 0 {
			s.forget(former)
		}
	}
	s.adoptPools(n)
	if other, taken := s.NodeNamed(n.Name); taken && other.ID != n.ID {
		return fmt.Errorf("a node named %s: %w", n.Name, ErrNameTaken)
	}
	if !had && len(s.Nodes) >= MaxNodes {
		return fmt.Errorf("nodes, %d are allowed: %w", MaxNodes, ErrLimit)
	}
	n.Group = old.Group
	if !had {
		n.Group = s.inherited(before, former)
		if n.Group == 0 {
			n.Group = s.freeGroup()
		}
		s.LastGroup = max(s.LastGroup, n.Group)
	}
	// A pool with a replica is not forgotten because its disk is absent at a start.
	for _, p := range old.Pools {
		if s.holds(p.ID) && !slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.ID }) {
			n.Pools = append(slices.Clone(n.Pools), p)
		}
	}
	slices.SortFunc(n.Pools, func(a, b Pool) int { return cmp.Compare(a.Path, b.Path) })
	s.setNode(n)
	return nil
}

// adoptPools gives n the pools that another identity of its machine had, with their replicas.
func (s *State) adoptPools(n Node) {
	others := slices.SortedFunc(maps.Values(s.Nodes), func(a, b Node) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	for _, other := range others { // in an order that is the same on every node
		if other.ID == n.ID {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(other.Pools), func(p Pool) bool {
			return slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.ID })
		})
		if len(left) == len(other.Pools) {
			continue
		}
		for _, v := range s.Volumes {
			if v.movePools(other.ID, n) {
				s.setVolume(v)
			}
		}
		s.moveTrash(other.ID, n)
		other.Pools = left
		s.setNode(other)
		if len(left) == 0 {
			s.forget(other.ID)
		}
	}
}

// moved returns places in which those of n's pools at from are n's.
func moved(places []Place, from ids.Node, n Node) (out []Place, changed bool) {
	out = slices.Clone(places)
	for i, p := range out {
		if p.Node == from && slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.Pool }) {
			out[i].Node, changed = n.ID, true
		}
	}
	return out, changed
}

// holds tells whether a replica, or what is left of one, is in a pool.
func (s *State) holds(pool ids.Pool) bool {
	for _, v := range s.Volumes {
		at := func(p Place) bool { return p.Pool == pool }
		if slices.ContainsFunc(v.Replicas, at) || slices.ContainsFunc(v.Gone, at) {
			return true
		}
	}
	for _, t := range s.Trash {
		if at := func(p Place) bool { return p.Pool == pool }; slices.ContainsFunc(t.Volume.Replicas, at) || slices.ContainsFunc(t.Volume.Gone, at) {
			return true
		}
	}
	return false
}

// inherited is the group of the identity that this one takes the place of: to hosts it is the same port. 0: of none.
func (s *State) inherited(before map[ids.Node]Node, former ids.Node) (g uint16) {
	for id, n := range before {
		if _, still := s.Nodes[id]; still {
			continue
		}
		if id == former {
			return n.Group
		}
		if g == 0 || n.Group < g {
			g = n.Group
		}
	}
	return g
}

// freeGroup is a target portal group that no node ever had: hosts' reservations are held through it. Should all have been used,
// it is one that no node has. All are far below that of the virtual address.
func (s *State) freeGroup() uint16 {
	if s.LastGroup < maxGroup {
		last := s.LastGroup
		for _, n := range s.Nodes { // of a state that did not count yet
			last = max(last, n.Group)
		}
		return last + 1
	}
	for g := uint16(1); ; g++ {
		taken := false
		for _, n := range s.Nodes {
			taken = taken || n.Group == g
		}
		if !taken {
			return g
		}
	}
}

func (s *State) removeNode(id ids.Node) error {
	n, ok := s.Nodes[id]
	if !ok {
		if slices.Contains(s.Removed, id) {
			return nil
		}
		return ErrNoNode
	}
	for _, v := range s.Volumes {
		if slices.ContainsFunc(v.InSync, func(p Place) bool { return p.Node == id }) {
			return fmt.Errorf("a replica of %s on %s is in its in-sync set: %w", v.Name, n.Name, ErrInUse)
		}
	}
	for _, v := range s.Volumes {
		if v.mentions(id) {
			s.setVolume(v.withoutNode(id))
		}
	}
	if name, needed := s.neededByTrash(id); needed {
		return fmt.Errorf("the last in-sync replica of %s, which is in the trash, is on %s: %w", name, n.Name, ErrInUse)
	}
	s.leaveTrash(id)
	s.forget(id)
	return nil
}

// forget takes an identity out: its certificate is refused from now on.
func (s *State) forget(id ids.Node) {
	s.Nodes = maps.Clone(s.Nodes)
	delete(s.Nodes, id)
	s.Former = slices.DeleteFunc(slices.Clone(s.Former), func(n ids.Node) bool { return n == id })
	s.Removed = keep(s.Removed, MaxRequests, id)
}

func (s *State) addToken(c Command, t Token) error {
	if len(t.Digest) != 32 || !t.Used.IsZero() {
		return invalid("a token")
	}
	// Those that can be used no more make room.
	live := slices.DeleteFunc(slices.Clone(s.Tokens), func(o Token) bool { return c.Time.After(o.Expires.Add(24 * time.Hour)) })
	s.Tokens = keep(live, MaxTokens, t)
	return nil
}

func (s *State) useToken(c Command, b UseToken) error {
	i := slices.IndexFunc(s.Tokens, func(t Token) bool { return string(t.Digest) == string(b.Digest) })
	if i < 0 {
		return fmt.Errorf("%w is not known here", ErrToken)
	}
	t := s.Tokens[i]
	switch {
	case c.Time.After(t.Expires):
		return fmt.Errorf("%w has expired", ErrToken)
	case t.Used == b.Node && !b.Node.IsZero(): // its answer was lost
		return nil
	case !t.Used.IsZero():
		return fmt.Errorf("%w was used already", ErrToken)
	case t.Witness != b.Witness:
		return fmt.Errorf("%w is for a %s", ErrToken, map[bool]string{true: "witness", false: "storage node"}[t.Witness])
	}
	t.Used = b.Node
	s.Tokens = slices.Clone(s.Tokens)
	s.Tokens[i] = t
	return nil
}

func (s *State) addEvents(events []Event) error {
	if len(events) > 256 {
		return invalid("%d events in one command", len(events))
	}
	for i := range events {
		events[i].Index = s.Index
		if len(events[i].Text) > MaxText {
			events[i].Text = events[i].Text[:MaxText]
		}
		if len(events[i].Kind) > 64 {
			events[i].Kind = events[i].Kind[:64]
		}
	}
	s.Events = keep(s.Events, MaxEvents, events...)
	return nil
}
