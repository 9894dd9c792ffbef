package target_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Commands of the fake nexus: CDB byte 0; bytes 2 to 5 are a length.
const (
	fakeRead  = 0xc1 // answers so many bytes, each its offset
	fakeWrite = 0xc2 // takes so many bytes
	fakeHold  = 0x01 // in CDB byte 1: the task is not ended before release
	fakeTell  = 0x02 // in CDB byte 1: it is counted when the answer was delivered
)

// fakeNexus records what is done to it. Its methods must not be called at once: the race detector would tell.
type fakeNexus struct {
	p        *fakeProvider
	login    target.Login
	accepted int
	ending   chan struct{} // End waits for it, if there is one

	mu       sync.Mutex
	written  [][]byte
	executed []uint32
	canceled []uint32
	held     []*target.Task
	cause    error
	resets   int
	stops    atomic.Int64 // tasks that were told to stop

	delivered atomic.Int64 // answers that the initiator is known to have
}

func length(cdb []byte) int { return int(binary.BigEndian.Uint32(cdb[2:])) }

func (x *fakeNexus) Accept(t *target.Task) target.Want {
	x.accepted++
	t.State = x.p.begun.Load()
	if t.CDB[0] == fakeRead {
		return target.Want{In: int64(length(t.CDB))}
	}
	return target.Want{Out: int64(length(t.CDB))}
}

func (x *fakeNexus) Execute(t *target.Task) {
	if x.p.answered.Load() > t.State.(int64) {
		x.p.late.Add(1)
	}
	x.mu.Lock()
	x.executed = append(x.executed, t.Tag)
	switch t.CDB[0] {
	case fakeRead:
		t.DataIn = block.Get(min(length(t.CDB), 4<<20))
		for i := range t.DataIn {
			t.DataIn[i] = pattern(i)
		}
	case fakeWrite:
		x.written = append(x.written, slices.Clone(t.DataOut))
		t.Moved = int64(length(t.CDB))
	}
	hold := t.CDB[1]&fakeHold != 0
	if t.CDB[1]&fakeTell != 0 {
		t.Delivered = func() { x.delivered.Add(1) }
	}
	if hold {
		x.held = append(x.held, t)
		t.Stop = func() { x.stops.Add(1) }
	}
	x.mu.Unlock()
	if !hold {
		t.Done(t)
	}
}

func pattern(i int) byte { return byte(i>>8*31 + i) }

func (x *fakeNexus) Cancel(t *target.Task) {
	x.mu.Lock()
	x.canceled = append(x.canceled, t.Tag)
	x.mu.Unlock()
}

func (x *fakeNexus) Manage(m target.Management) (target.Response, []any, func(func(target.Response))) {
	if n, ok := m.LUN.Number(); !ok || n != 1 {
		return target.LUNDoesNotExist, nil, nil
	}
	x.mu.Lock()
	x.resets++
	x.mu.Unlock()
	if m.Function >= target.LogicalUnitReset {
		return target.FunctionComplete, []any{uint16(1)}, x.p.afterwards
	}
	return target.FunctionComplete, nil, nil
}

func (x *fakeNexus) Unit(l target.LUN) any {
	n, _ := l.Number()
	return n
}

func (x *fakeNexus) End(cause error) {
	if x.ending != nil {
		<-x.ending
	}
	x.mu.Lock()
	x.cause = cause
	x.mu.Unlock()
}

// release ends the tasks that are held.
func (x *fakeNexus) release() {
	x.mu.Lock()
	held := x.held
	x.held = nil
	x.mu.Unlock()
	for _, t := range held {
		t.Done(t)
	}
}

func (x *fakeNexus) count() (executed, canceled, held int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.executed), len(x.canceled), len(x.held)
}

// fakeProvider accepts what it is told to.
type fakeProvider struct {
	auth   iscsi.Auth
	ending chan struct{}
	refuse *target.Refusal
	keys   []iscsi.Pair
	many   int // targets to discover beyond two

	afterwards func(func(target.Response)) // what is left of a reset when tasks are stopped

	// Resets begun and answered: a task must not be executed after one was answered that began after it was accepted.
	begun, answered, late atomic.Int64

	mu    sync.Mutex
	nexus []*fakeNexus
}

func (p *fakeProvider) Credentials(l target.Login) (iscsi.Auth, error) {
	if !l.Discovery && l.Target != testTarget {
		return iscsi.Auth{}, target.ErrNoTarget
	}
	return p.auth, nil
}

func (p *fakeProvider) Open(l target.Login) (target.Opened, error) {
	if p.refuse != nil {
		return target.Opened{}, p.refuse
	}
	x := &fakeNexus{p: p, login: l, ending: p.ending}
	p.mu.Lock()
	p.nexus = append(p.nexus, x)
	p.mu.Unlock()
	return target.Opened{Nexus: x, Keys: p.keys}, nil
}

func (p *fakeProvider) Discover(l target.Login) []target.Discovered {
	portals := []target.Portal{{Addr: l.Portal, Group: 1}}
	all := []target.Discovered{{Name: testTarget, Portals: portals}, {Name: testTarget + ":2", Portals: portals}}
	for i := range p.many {
		all = append(all, target.Discovered{Name: fmt.Sprintf("%s:%d", testTarget, i+3), Portals: portals})
	}
	return all
}

func (p *fakeProvider) last() *fakeNexus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nexus[len(p.nexus)-1]
}

// serve starts a server with a provider until the test ends.
func serve(t testing.TB, p *fakeProvider, options ...func(*target.Config)) (*target.Server, net.Addr) {
	t.Helper()
	cfg := target.Config{Provider: p, Tunables: target.DefaultTunables()}
	for _, o := range options {
		o(&cfg)
	}
	s, err := target.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		<-served
	})
	return s, l.Addr()
}
