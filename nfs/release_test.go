package nfs_test

import (
	"context"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
)

// absent has one share that nobody serves: whoever asks for it waits, as for a take-over, and is told nothing in the end.
type absent struct {
	*memshare.Exports
	share ids.Volume
	over  chan struct{} // closed: the wait is over
}

func (x absent) ByShare(ctx context.Context, id ids.Volume) (*nfs.Export, error) {
	if id == x.share {
		<-x.over
		return nil, block.ErrHeld
	}
	return x.Exports.ByShare(ctx, id)
}

// TestReleaseBesideAnAbsentShare: a host that was started anew has its locks released in the shares that are served, although one is not.
func TestReleaseBesideAnAbsentShare(t *testing.T) {
	d := open(t)
	f := d.file("f", 0o666, "")
	lost := nfs.Export{Path: "/aaa", ID: ids.Volume{9}, Rules: d.export.Rules}
	d.exports.Set(lost)
	over := make(chan struct{})
	_, d.addr = serve(t, absent{d.exports, lost.ID, over})
	d.c = d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys})
	if stat, _ := d.lock(f, lockCall{proc: 2, host: "a", len: 1, exclusive: true}); stat != 0 {
		t.Fatal(stat)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, ended := d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys}), make(chan struct{})
	go func() {
		defer close(ended)
		_, err := c.RPC().Call(ctx, 100024, 1, 6, func(e *xdr.Encoder) { e.String("a"); e.Uint32(3) }, nil)
		if err == nil {
			t.Error("NOTIFY was answered, although not all is released")
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		if stat, _ := d.lock(f, lockCall{proc: 1, host: "b", len: 1, exclusive: true}); stat == 0 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-late:
			t.Error("the lock of a host that was started anew stays")
		}
		break
	}
	cancel() // it is not answered: its client asks again
	<-ended
	close(over)
}

// TestLateNotify: a host says that it was started anew when it has locked what it uses now, or says it once more: NOTIFY is sent by a daemon
// of its own, until it is answered. What the host has locked since its start stays.
func TestLateNotify(t *testing.T) {
	d := open(t)
	f := d.file("disk", 0o666, "")
	lock := func(proc uint32, off uint64, state uint32) uint32 {
		t.Helper()
		stat, _ := d.lock(f, lockCall{proc: proc, host: "a", off: off, len: 10, exclusive: true, state: state})
		return stat
	}
	free := func(off uint64) bool {
		t.Helper()
		stat, _ := d.lock(f, lockCall{proc: 1, host: "b", off: off, len: 1, exclusive: true})
		return stat == 0
	}
	notify := func(state uint32) {
		t.Helper()
		if _, err := d.c.RPC().Call(t.Context(), 100024, 1, 6, func(e *xdr.Encoder) { e.String("a"); e.Uint32(state) }, nil); err != nil {
			t.Fatal(err)
		}
	}
	if lock(2, 0, 7) != 0 || lock(2, 100, 9) != 0 {
		t.Fatal("LOCK")
	}
	for range 2 {
		notify(9)
		if !free(0) {
			t.Error("the lock of before the start stays")
		}
		if free(100) {
			t.Error("the lock of after the start is gone, and its owner has not heard")
		}
	}
	if notify(11); !free(100) {
		t.Error("the lock of before the next start stays")
	}
}
