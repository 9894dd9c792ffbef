package front

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/reserve"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

// Causes for which hosts' sessions are dropped.
var (
	// ErrNotServed is the cause when this node stopped serving the volume.
	ErrNotServed = fmt.Errorf("front: this node no longer serves the volume: %w", target.ErrMoved)
	// ErrUnexported is the cause when the export ended, or no longer allows the initiator.
	ErrUnexported = errors.New("front: the export has changed")
)

// Export is a volume exported, as the catalog has it.
type Export struct {
	Volume     ids.Volume
	Name       string // the volume's
	Geometry   block.Geometry
	LUN        uint16
	Initiators []string // in lower case; empty: any
	CHAP       iscsi.Credentials
	Paths      Paths

	Access   uint16        // the group of the node that serves the volume, 0 while none does
	Reserved reserve.State // what hosts have reserved, as the state of the catalog numbered Index has it
	Index    uint64
}

// equal tells whether two exports are the same to a host.
func (e Export) equal(o Export) bool {
	return e.Volume == o.Volume && e.Name == o.Name && e.LUN == o.LUN && slices.Equal(e.Initiators, o.Initiators) &&
		e.Paths == o.Paths && e.CHAP.Name == o.CHAP.Name && string(e.CHAP.Secret) == string(o.CHAP.Secret)
}

func (e Export) allows(initiator string) bool {
	return len(e.Initiators) == 0 || slices.Contains(e.Initiators, strings.ToLower(initiator))
}

// HostsConfig is what Hosts needs.
type HostsConfig struct {
	Group   uint16                 // the target portal group of this node
	Portals func() []target.Portal // of all nodes that hosts may log in to, and the virtual one; it must not block
	// Certain brings the exports up to date (Apply) and tells whether this node knows all that exist: it leads, and a
	// majority has said so since it was called (invariant 11). Only then is an unknown target refused as such; a host that
	// is told so may give a disk up for good. It is called without a lock.
	Certain func() bool
	Hold    func() time.Duration // hold_timeout
	Around  scsi.Around          // the other nodes
	Cluster ids.Cluster          // names the target of mapped LUNs
	// Verifier is what nodes that look at the portals prove, and what is proved to them; without a secret none may.
	Verifier iscsi.Auth
	Now      func() time.Time // time.Now if nil
	Log      *slog.Logger
}

// Hosts has the targets of the exported volumes. It is told what the catalog exports and what this node serves. Its methods
// are safe for concurrent use.
type Hosts struct {
	cfg HostsConfig

	mu      sync.Mutex
	targets map[string]*exported    // by target name
	devices map[ids.Volume]served   // what is served here
	waits   map[ids.Volume]*waiting // what is waited for here; never also in devices
	closing map[ids.Volume]struct{} // exports on their way out: no login

	hosts map[string]*mapped      // by name
	units map[ids.Volume]*offered // of mapped volumes
	shut  map[string]struct{}     // hosts whose maps change: no login
	slow  backoff
}

// served is a device, and who keeps its reservations.
type served struct {
	block.Device
	keeper scsi.Keeper
}

// door is a target with its sessions.
type door struct {
	target *scsi.Target
	// nexuses are those of the sessions that were accepted and have not ended. Guarded by Hosts.mu.
	nexuses map[*nexus]struct{}
}

// exported is the target of a volume.
type exported struct {
	Export
	door
	lu *scsi.LU
}

// drop ends the sessions that match, and does not wait for that. Called with Hosts.mu.
func (x *door) drop(cause error, match func(target.Login) bool) {
	for n := range x.nexuses {
		if match(n.login) {
			n.login.Drop(cause)
		}
	}
}

func every(target.Login) bool { return true }

// nexus is a host's, known to its target until it ends.
type nexus struct {
	*scsi.Nexus
	login target.Login
	hosts *Hosts
	of    *door
	ended chan struct{}
}

// End implements target.Nexus.
func (n *nexus) End(cause error) {
	n.Nexus.End(cause)
	n.hosts.mu.Lock()
	delete(n.of.nexuses, n)
	n.hosts.mu.Unlock()
	close(n.ended)
}

// NewHosts returns Hosts without exports.
func NewHosts(cfg HostsConfig) *Hosts {
	return &Hosts{cfg: cfg, targets: map[string]*exported{}, devices: map[ids.Volume]served{},
		waits: map[ids.Volume]*waiting{}, closing: map[ids.Volume]struct{}{}, hosts: map[string]*mapped{}, units: map[ids.Volume]*offered{},
		shut: map[string]struct{}{}}
}

// Apply makes the targets those of exports. Sessions of targets that went, or that changed so that the host would be
// refused now, are dropped; it does not wait for their end.
func (h *Hosts) Apply(exports []Export) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	want := make(map[string]Export, len(exports))
	for _, e := range exports {
		want[TargetName(e.Name)] = e
	}
	for name, x := range h.targets {
		e, ok := want[name]
		if ok && e.Volume == x.Volume && e.LUN == x.LUN {
			x.lu.Reserved(e.Reserved, e.Index)
			x.lu.Expect(e.Geometry)
			if e.Access != x.Access {
				x.Access = e.Access
				x.lu.AccessChanged()
			}
			if !e.equal(x.Export) {
				x.Export = e
				x.drop(ErrUnexported, func(l target.Login) bool { return !e.allows(l.Initiator) || l.User != e.CHAP.Name })
			}
			x.drop(ErrNotServed, h.misses(x.Paths, x.Access, x.Volume))
			delete(want, name)
			continue
		}
		delete(h.targets, name)
		x.lu.Standby()
		x.drop(ErrUnexported, every)
	}
	for name, e := range want {
		x := &exported{Export: e, door: door{scsi.NewTarget(name, h.cfg.Group), map[*nexus]struct{}{}},
			lu: scsi.NewLUAmong(e.Volume, h.cfg.Around)}
		if err := x.target.SetLUNs(map[uint16]*scsi.LU{e.LUN: x.lu}); err != nil {
			return fmt.Errorf("exporting %s: %w", e.Name, err)
		}
		x.lu.Reserved(e.Reserved, e.Index)
		x.lu.Expect(e.Geometry)
		h.targets[name] = x
		h.connect(x.lu, x.Name)
	}
	return nil
}

// connect gives an LU what is served. Called with mu.
func (h *Hosts) connect(lu *scsi.LU, name string) {
	dev := h.devices[lu.Volume()]
	if w := h.waits[lu.Volume()]; w != nil {
		dev = served{w, nil}
	}
	if dev.Device == nil {
		lu.Standby()
		return
	}
	if err := lu.Serve(dev.Device, dev.keeper); err != nil {
		h.cfg.Log.Error("a volume cannot be served", "volume", name, "err", err)
		lu.Standby()
	}
}

// change does f and brings the LUs of a volume in line. Called without mu.
func (h *Hosts) change(v ids.Volume, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.waits[v]
	f()
	for _, x := range h.targets {
		if x.Volume == v {
			h.connect(x.lu, x.Name)
		}
	}
	if u := h.units[v]; u != nil {
		h.connect(u.lu, u.Name)
	}
	if old != nil && h.waits[v] != old {
		// Its requests' Done may need a lock that their Submit holds; they need none of ours.
		old.end()
	}
}

// Serve says that dev answers I/O of v from now on, and that keeper keeps its reservations.
func (h *Hosts) Serve(v ids.Volume, dev block.Device, keeper scsi.Keeper) {
	h.change(v, func() { h.devices[v] = served{dev, keeper}; delete(h.waits, v) })
}

// Ask has the LU of a volume answer a question of another node; see scsi.LU.Ask. Where the volume is not served nothing is done.
func (h *Hosts) Ask(q scsi.Question, done func(scsi.Answer, error)) (end func(), served bool, err error) {
	h.mu.Lock()
	all := h.of(q.Volume) // one at most: a volume is exported or mapped
	// Who waits for members can say what the unit is like, and nothing else.
	able := h.devices[q.Volume].Device != nil || h.waits[q.Volume] != nil && q.Describes()
	h.mu.Unlock()
	if len(all) == 0 || !able {
		return nil, false, nil
	}
	end, err = all[0].Ask(q, done)
	return end, true, err
}

// Wait says that this node leads but cannot serve v at present: I/O is held. A volume that is served stays so: whoever says
// Wait may have learned of its state before Serve was called, and whoever ended the serving has said Standby.
func (h *Hosts) Wait(v ids.Volume, g block.Geometry) {
	h.change(v, func() {
		if h.devices[v].Device == nil && h.waits[v] == nil {
			h.waits[v] = newWaiting(g, h.cfg.Hold())
		}
	})
}

// Standby says that this node does not serve v: its LU is NOT READY, and the sessions of its target are dropped, so that
// hosts look for the new leader; what they left unanswered is theirs to repeat there (invariant 8).
func (h *Hosts) Standby(v ids.Volume) {
	h.change(v, func() { delete(h.devices, v); delete(h.waits, v) })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.targets {
		if x.Volume == v {
			x.drop(ErrNotServed, every)
		}
	}
	for _, m := range h.hosts {
		if m.has(v) {
			m.drop(ErrNotServed, every)
		}
	}
}

// StandbyAll is Standby for every volume.
func (h *Hosts) StandbyAll() {
	h.mu.Lock()
	served := map[ids.Volume]struct{}{}
	for v := range h.devices {
		served[v] = struct{}{}
	}
	for v := range h.waits {
		served[v] = struct{}{}
	}
	h.mu.Unlock()
	for v := range served {
		h.Standby(v)
	}
}

// Known tells whether this node has a device for every exported volume, be it one that waits: then it can be the one
// behind the virtual address.
func (h *Hosts) Known() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.targets {
		if h.devices[x.Volume].Device == nil && h.waits[x.Volume] == nil {
			return false
		}
	}
	for v := range h.units {
		if h.devices[v].Device == nil && h.waits[v] == nil {
			return false
		}
	}
	return true
}

// find returns a target by its name. Called with mu.
func (h *Hosts) find(name string) *exported { return h.targets[strings.ToLower(name)] }

// Close refuses logins to a volume's target from now on and drops its sessions; it returns when nothing that they brought
// can be submitted any more, with a function that allows logins again.
func (h *Hosts) Close(ctx context.Context, v ids.Volume) (undo func(), err error) {
	h.mu.Lock()
	if _, twice := h.closing[v]; twice {
		h.mu.Unlock()
		return nil, fmt.Errorf("the export is being ended already: %w", ErrUnexported)
	}
	h.closing[v] = struct{}{}
	var open []*nexus
	for _, x := range h.targets {
		if x.Volume == v {
			x.drop(ErrUnexported, every)
			open = append(open, slices.Collect(maps.Keys(x.nexuses))...)
		}
	}
	h.mu.Unlock()
	undo = func() {
		h.mu.Lock()
		delete(h.closing, v)
		h.mu.Unlock()
	}
	if err := waitEnd(ctx, open); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// waitEnd waits until nothing that the sessions brought can be submitted any more.
func waitEnd(ctx context.Context, open []*nexus) error {
	for _, n := range open {
		select {
		case <-n.ended:
		case <-ctx.Done():
			return fmt.Errorf("ending the hosts' sessions: %w", context.Cause(ctx))
		}
	}
	return nil
}

// Credentials tells how a host must prove who it is. One that has failed to for several times waits.
func (h *Hosts) Credentials(l target.Login) (iscsi.Auth, error) {
	h.mu.Lock()
	late := h.slow.barred(l.Remote.Addr(), h.now())
	h.mu.Unlock()
	if late {
		return iscsi.Auth{}, errTooMany
	}
	if h.verifies(l) {
		return h.cfg.Verifier, nil
	}
	if h.isCommon(l.Target) {
		m, err := h.admitHost(l)
		defer h.mu.Unlock()
		if err != nil {
			return iscsi.Auth{}, err
		}
		return iscsi.Auth{Initiator: m.CHAP, Own: m.Own}, nil
	}
	x, err := h.admit(l)
	defer h.mu.Unlock()
	if err != nil {
		return iscsi.Auth{}, err
	}
	return iscsi.Auth{Initiator: x.CHAP}, nil
}

// Open accepts a login.
func (h *Hosts) Open(l target.Login) (target.Opened, error) {
	if h.verifies(l) {
		return h.openVerifier(l)
	}
	var in *door
	var chap string
	var misses func(target.Login) bool
	var paths Paths
	var access uint16
	if h.isCommon(l.Target) {
		m, err := h.admitHost(l)
		defer h.mu.Unlock()
		if err != nil {
			return target.Opened{}, err
		}
		in, chap, paths, access = &m.door, m.CHAP.Name, m.Paths, h.access(m)
		misses = h.misses(paths, access, m.volumes()...)
	} else {
		x, err := h.admit(l)
		defer h.mu.Unlock()
		if err != nil {
			return target.Opened{}, err
		}
		in, chap, paths, access = &x.door, x.CHAP.Name, x.Paths, x.Access
		misses = h.misses(paths, access, x.Volume)
	}
	if l.User != chap { // it has changed since Credentials
		return target.Opened{}, target.ErrForbidden
	}
	if chap != "" {
		h.slow.forgive(l.Remote.Addr())
	}
	if misses(l) {
		to, _ := paths.redirects(h.cfg.Portals(), l, h.cfg.Group, access)
		return target.Opened{}, movedTo(to)
	}
	n := &nexus{Nexus: in.target.Nexus(l), login: l, hosts: h, of: in, ended: make(chan struct{})}
	in.nexuses[n] = struct{}{}
	return target.Opened{Nexus: n}, nil
}

func (h *Hosts) now() time.Time {
	if h.cfg.Now != nil {
		return h.cfg.Now()
	}
	return time.Now()
}

// admit finds the target of a login that is allowed. It returns with mu held, which what it has found is good for.
func (h *Hosts) admit(l target.Login) (*exported, error) {
	h.mu.Lock()
	x, certain := h.find(l.Target), false
	if x == nil {
		h.mu.Unlock()
		certain = h.cfg.Certain()
		h.mu.Lock()
		x = h.find(l.Target)
	}
	switch {
	case x == nil && certain:
		return nil, target.ErrNoTarget
	case x == nil || h.isClosing(x.Volume):
		// It may exist and not be known here yet: a refusal for good would be reported to the host as a loss.
		return nil, target.ErrUnavailable
	case !x.allows(l.Initiator):
		return nil, target.ErrForbidden
	}
	return x, nil
}

func (h *Hosts) isClosing(v ids.Volume) bool { _, is := h.closing[v]; return is }

// admitDiscovery refuses, for the moment, who would be told of nothing by a node that may not know all: some hosts forget what is not
// reported any more.
func (h *Hosts) admitDiscovery(l target.Login) error {
	if len(h.Discover(l)) > 0 || h.cfg.Certain() || len(h.Discover(l)) > 0 {
		return nil
	}
	return target.ErrUnavailable
}

// Discover returns the targets that an initiator may use, with the portals.
func (h *Hosts) Discover(l target.Login) []target.Discovered {
	portals := h.cfg.Portals()
	found := l.Portal.Addr()
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []target.Discovered
	for name, x := range h.targets {
		if x.allows(l.Initiator) {
			all = append(all, target.Discovered{Name: name, Portals: x.Paths.portals(portals, found)})
		}
	}
	if m := h.known(l.Initiator); m != nil && len(m.LUNs) > 0 {
		all = append(all, target.Discovered{Name: CommonName(h.cfg.Cluster), Portals: m.Paths.portals(portals, found)})
	}
	slices.SortFunc(all, func(a, b target.Discovered) int { return strings.Compare(a.Name, b.Name) })
	return all
}
