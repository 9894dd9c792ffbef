package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/peer"
)

// Node is what the server end needs of the node's own replicas.
type Node interface {
	// Accepted returns the highest epoch that the node has accepted.
	Accepted() peer.Epoch
	// Open fences for an epoch and returns a session of it, or a *peer.EpochError (invariant 8). It ends every session of
	// a lower epoch, and an earlier one of the same epoch: their commands have finished then, can no longer touch a
	// medium, or make their pool busy.
	Open(ctx context.Context, e peer.Epoch) (peer.Session, error)
}

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	Cluster ids.Cluster
	Node    Node
	Log     *slog.Logger // slog.Default if nil
}

// Server is the end of a node that holds replicas.
type Server struct {
	cfg   ServerConfig
	tasks sync.WaitGroup // goroutines of all nexuses
}

// NewServer returns a Server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Server{cfg: cfg}
}

// Wait returns when no FENCE or POLL is under way any more. It is called after every nexus has ended.
func (s *Server) Wait() { s.tasks.Wait() }

// Login decides about a login by its vendor keys, once the initiator has proved that it knows the cluster's key and both
// digests are agreed. It returns the nexus, which must be ended by End, and the keys of the response, or a *Refusal.
func (s *Server) Login(vendor []iscsi.Pair) (*Nexus, []iscsi.Pair, error) {
	e, err := parseLogin(s.cfg.Cluster, vendor)
	if err != nil {
		return nil, nil, err
	}
	if accepted := s.cfg.Node.Accepted(); accepted > e {
		return nil, nil, refuseEpoch(accepted)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Nexus{server: s, node: s.cfg.Node, log: s.cfg.Log.With("epoch", uint64(e)), epoch: e, ctx: ctx, cancel: cancel,
		answers: map[uint64][]byte{}}
	return n, loginKeys(s.cfg.Cluster, e), nil
}

// Task is one command at the server end. The carrier owns it before Execute and from Done on.
type Task struct {
	CDB     []byte
	DataOut []byte      // lent to the nexus until Done
	InLen   int         // how many bytes of Data-In the initiator takes
	Lent    *block.Lent // the goroutine that calls Execute, or nil

	Status byte   // SAM-5 5.3.1
	Sense  []byte // valid until the Task is used anew
	DataIn []byte // the carrier's from Done on, which may give it to block.Put
	Moved  int    // how many bytes of Data-Out the command takes; another number than was sent is a residual

	// Done is called exactly once, from any goroutine, perhaps before Execute has returned. It must not block.
	Done func(*Task)
	// Owner is the carrier's.
	Owner any

	nexus *Nexus
	req   request
	call  peer.Call
	sense [senseLen]byte
}

// maxAnswers bounds the answers that a nexus keeps for FETCH. The leader's end asks for fewer at a time; it may give some up.
const maxAnswers = 2 * maxLarge

// Nexus executes the commands of one session of a leader.
type Nexus struct {
	server *Server
	node   Node
	log    *slog.Logger
	epoch  peer.Epoch
	ctx    context.Context // ends with the nexus
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows
	ended   bool
	fencing bool         // FENCE has come
	local   peer.Session // nil before FENCE was answered
	token   uint64
	answers map[uint64][]byte // bodies that FETCH may ask for
}

// Want says what a command needs: bytes of Data-Out to be collected, and of memory for Data-In. What is not understood
// needs nothing; Execute will refuse it.
func (n *Nexus) Want(cdb []byte, expectedOut, expectedIn int64) (out, in int64) {
	q, err := decodeCDB(cdb)
	if err != nil {
		return 0, 0
	}
	switch q.act {
	case actWrite:
		return min(q.length, expectedOut), 0
	case actClear:
		return min(maxRegions*regionLen, expectedOut), 0
	case actCreate, actReset, actGrow:
		return min(specLen, expectedOut), 0
	case actRead, actFetch:
		return 0, min(q.length, expectedIn)
	case actKnow:
		return min(peer.MaxOthers*otherLen, expectedOut), 0
	case actAddMissed, actDropMissed:
		return min(otherLen+maxMissed*extentLen, expectedOut), 0
	case actFence, actPoll, actReadMap, actExtents, actSums, actReadMissed:
		return 0, expectedIn
	}
	return 0, 0
}

// Execute starts a command. It does not block.
func (n *Nexus) Execute(t *Task) {
	t.nexus, t.Status, t.Sense, t.DataIn, t.Moved = n, 0, nil, nil, len(t.DataOut)
	q, err := decodeCDB(t.CDB)
	t.req = q
	if err != nil {
		t.fail(err)
		return
	}
	switch q.act {
	case actFence:
		n.fence(t)
	case actPoll:
		n.poll(t)
	case actFetch:
		n.fetch(t)
	default:
		n.submit(t)
	}
}

// fence opens the node's own session. Nothing is executed before that has succeeded (invariant 8).
func (n *Nexus) fence(t *Task) {
	n.mu.Lock()
	again := n.fencing
	n.fencing = true
	n.mu.Unlock()
	if again || peer.Epoch(t.req.seq) != n.epoch {
		t.fail(errSequence)
		return
	}
	n.server.tasks.Go(func() { // ends with ctx, as Open promises
		local, err := n.node.Open(n.ctx, n.epoch)
		if err != nil {
			n.log.Info("fence refused", "err", err)
			t.fail(err)
			return
		}
		n.mu.Lock()
		ended := n.ended
		if !ended {
			n.local = local
		}
		n.mu.Unlock()
		if ended {
			local.Close()
			t.fail(peer.ErrLost)
			return
		}
		f := local.Fenced()
		t.answer(appendFenced(nil, &f))
	})
}

// session returns the node's own session, or nil before FENCE was answered.
func (n *Nexus) session() peer.Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.local
}

func (n *Nexus) poll(t *Task) {
	local := n.session()
	if local == nil {
		t.fail(errSequence)
		return
	}
	n.server.tasks.Go(func() {
		f, err := local.Poll(n.ctx)
		if err != nil {
			t.fail(err)
			return
		}
		t.answer(appendFenced(nil, &f))
	})
}

// fetch answers with a part of an answer that was kept, which is dropped with its last byte.
func (n *Nexus) fetch(t *Task) {
	n.mu.Lock()
	body, ok := n.answers[t.req.seq]
	length := int64(len(body))
	if ok && t.req.off+t.req.length >= length {
		delete(n.answers, t.req.seq)
	}
	n.mu.Unlock()
	if !ok || t.req.off > length || t.req.length > min(length-t.req.off, MaxTransfer) || t.req.length > int64(t.InLen) {
		t.fail(fmt.Errorf("no such part of an answer: %w", peer.ErrInvalid))
		return
	}
	t.DataIn = block.Get(int(t.req.length)) // a copy: the carrier will put it back
	copy(t.DataIn, body[t.req.off:])
	t.Done(t)
}

// submit hands a command to the node's own session.
func (n *Nexus) submit(t *Task) {
	local := n.session()
	if local == nil {
		t.fail(errSequence)
		return
	}
	q := &t.req
	c := &t.call
	c.Command = peer.Command{Kind: q.act.kind(), Volume: q.volume, Off: q.off, Len: q.length,
		Seq: peer.Seq(q.seq), Durable: peer.Seq(q.durable), Proved: q.proved, Volatile: q.volatile, Lent: t.Lent}
	if q.act == actDelete {
		c.Seq, c.Durable = 0, 0
		binary.BigEndian.PutUint64(c.Spec.Pool[:], q.seq)
		binary.BigEndian.PutUint64(c.Spec.Pool[8:], q.durable)
	}
	c.Answer = peer.Answer{}
	if err := t.payload(); err != nil {
		t.fail(fmt.Errorf("%w: %w", peer.ErrInvalid, err))
		return
	}
	c.Owner = t
	c.Done = finished
	local.Submit(c)
}

// payload decodes what goes with a command.
func (t *Task) payload() (err error) {
	c := &t.call
	switch t.req.act {
	case actWrite:
		t.Moved = int(c.Len)
		if int64(len(t.DataOut)) != c.Len {
			return errPayload
		}
		c.Data = t.DataOut
	case actRead:
		if int64(t.InLen) < c.Len {
			return errPayload
		}
		c.Data = block.Get(int(c.Len))
	case actClear:
		if len(t.DataOut) > maxRegions*regionLen {
			return errPayload
		}
		c.Regions, err = decodeRegions(t.DataOut)
	case actKnow:
		c.Others, err = decodeOthers(t.DataOut)
	case actReadMissed:
		c.Others = []peer.Other{{ID: peer.ReplicaID{Birth: t.req.birth()}}}
		c.Seq, c.Durable = 0, 0
	case actAddMissed, actDropMissed:
		c.Others, c.Missed, err = decodeMissed(t.DataOut)
	case actCreate, actReset, actGrow:
		c.Spec, err = decodeSpec(t.DataOut)
	}
	return err
}

// finished takes the answer of the node's own session.
func finished(c *peer.Call) {
	t := c.Owner.(*Task)
	data := c.Data
	c.Data, c.Regions, c.Others, c.Missed = nil, nil, nil, nil
	if c.Err != nil {
		if t.req.act == actRead {
			block.Put(data)
		}
		t.fail(c.Err)
		return
	}
	switch t.req.act {
	case actRead:
		t.DataIn = data
	case actReadMap:
		t.answer(appendMap(nil, &c.Answer))
		return
	case actExtents, actReadMissed:
		t.answer(appendExtents(nil, c.Extents))
		return
	case actSums:
		t.answer(appendSums(nil, c.Sums))
		return
	}
	t.Done(t)
}

// answer ends a task whose answer has no fixed size.
func (t *Task) answer(body []byte) {
	if len(body) > maxBody {
		t.fail(fmt.Errorf("answer of %d bytes: %w", len(body), peer.ErrInvalid))
		return
	}
	h := answerHeader{act: t.req.act, length: uint64(len(body))}
	if t.InLen < answerHead {
		t.fail(fmt.Errorf("no room for an answer: %w", peer.ErrInvalid))
		return
	}
	if room := t.InLen - answerHead; len(body) > room {
		if h.token = t.nexus.keep(body); h.token == 0 {
			t.fail(peer.ErrLost)
			return
		}
		body = body[:room]
	}
	t.DataIn = append(h.append(make([]byte, 0, answerHead+len(body))), body...)
	t.Done(t)
}

// keep stores an answer for FETCH and returns its token, or 0.
func (n *Nexus) keep(body []byte) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return 0
	}
	if len(n.answers) >= maxAnswers { // then some were given up by who asked: the oldest
		delete(n.answers, slices.Min(slices.Collect(maps.Keys(n.answers))))
	}
	n.token++
	n.answers[n.token] = body
	return n.token
}

// fail ends a task with an error.
func (t *Task) fail(err error) {
	if !errors.Is(err, peer.ErrEpoch) && !errors.Is(err, peer.ErrLost) {
		t.nexus.log.Debug("command failed", "action", fmt.Sprintf("%#x", uint16(t.req.act)), "err", err)
	}
	t.Status = statusCheckCondition
	t.Sense = encodeSense(&t.sense, err, t.req.act)
	t.Done(t)
}

const statusCheckCondition = 0x02

// End says that the iSCSI session is over. Commands under way may end later. It does not wait for them: a later session
// of a node is opened by Node.Open, which does, or calls their pool busy.
func (n *Nexus) End() {
	n.mu.Lock()
	local := n.local
	n.ended, n.local = true, nil
	clear(n.answers)
	n.mu.Unlock()
	n.cancel()
	if local != nil {
		local.Close()
	}
}
