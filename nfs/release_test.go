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
