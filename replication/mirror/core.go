package mirror

import (
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Errors of a resync.
var (
	// ErrBusy is returned when a resync is under way already, or the mirror drains or has ended.
	ErrBusy = errors.New("mirror: not now")
	// ErrMember is returned when the node is in the in-sync set already, or holds no replica of the volume.
	ErrMember = errors.New("mirror: not a replica outside the in-sync set")
	// ErrStopped ends a resync that StopResync or a drain stopped.
	ErrStopped = errors.New("mirror: stopped")
	// ErrClosed is the cause of a mirror that was closed with none.
	ErrClosed = errors.New("mirror: closed")
)

// Core is the pure state machine of one open volume. Every method may produce effects; the caller takes them with
// Effects after each call. Calls and requests are identified by their addresses and used again: nothing is allocated per
// I/O once the Core is warm.
type Core struct {
	p       Params
	effects []Effect
}

// New makes a Core. Its first effects read the members' active maps; requests wait for them.
func New(p Params) (*Core, error) {
	p.Tunables = p.Tunables.withDefaults()
	if err := p.validate(); err != nil {
		return nil, err
	}
	return &Core{p: p}, nil
}

// Geometry describes the device.
func (c *Core) Geometry() block.Geometry { return c.p.geometry(c.p.Tunables) }

// Tick says that it is now. Time never goes back. It is cheap where nothing is due, and is called before any other
// method when time has passed, so that deadlines count from the present.
func (c *Core) Tick(now time.Duration) {}

// Next says when Tick is wanted at the latest; false if only after another event.
func (c *Core) Next() (time.Duration, bool) { return 0, false }

// Submit begins a request.
func (c *Core) Submit(r *block.Request) {}

// Answered says that a call is over, whose Answer is set.
func (c *Core) Answered(call *peer.Call) {}

// Lost says that the session with a node has died, before or after its calls were answered with ErrLost. The caller does
// not report a session that Back has replaced.
func (c *Core) Lost(node ids.Node) {}

// Back says that there is a session of the same epoch with a node again, and what the replica's FencedReplica.Seq is in
// it (0 where the node holds none). The caller has seen that the pool is not busy and that the replica is not foreign;
// otherwise it is Unreachable with peer.ErrNoReplica.
func (c *Core) Back(node ids.Node, seq peer.Seq) {}

// Unreachable says that an attempt to reach a node failed. With peer.ErrEpoch the mirror ends.
func (c *Core) Unreachable(node ids.Node, err error) {}

// Decided is the end of a proposal: err is nil, a *truth.Rejection or truth.ErrUnknown.
func (c *Core) Decided(id uint64, out truth.Outcome, err error) {}

// StartResync begins to bring the replica of a node, which is not in the in-sync set and with which there is a session,
// into it. With empty the replica was made or reset under this epoch and reads as zeros.
func (c *Core) StartResync(node ids.Node, empty bool) error { return nil }

// StopResync ends the resync of a node, unless its joining is proposed already. ResyncDone tells the end.
func (c *Core) StopResync(node ids.Node) {}

// Granted is the answer to Ask.
func (c *Core) Granted() {}

// Drain begins a hand-over: requests that come from now on wait (and end with block.ErrEnded at Close), those before are
// finished, the resync is stopped, all marks are cleared. Drained tells the end; the caller bounds the wait.
func (c *Core) Drain() {}

// Close ends the mirror. Every request ends with block.ErrEnded, at once or when its last call was answered. The sessions
// are the caller's: it closes them where it wants an end soon. Idle tells when nothing is under way any more.
func (c *Core) Close(cause error) {}

// Idle says that no request, call or proposal is under way.
func (c *Core) Idle() bool { return true }

// Effects appends what is to be done to buf, in the order in which it was decided, and forgets it.
func (c *Core) Effects(buf []Effect) []Effect {
	buf = append(buf, c.effects...)
	clear(c.effects)
	c.effects = c.effects[:0]
	return buf
}

// Status describes the state.
func (c *Core) Status() Status { return Status{} }
