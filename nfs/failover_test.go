package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
)

// TestFailovers has clients work while connections are lost and one server takes over from another, the tree being kept.
// Each operation must have its effect once: a second MKDIR would say EXIST, a second REMOVE NOENT.
func TestFailovers(t *testing.T) {
	d := open(t)
	var current atomic.Pointer[string]
	current.Store(&d.addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var users sync.WaitGroup
	steps := make(chan struct{})
	for i := range 6 {
		cfg := sunrpc.ClientConfig{Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}, Retry: time.Millisecond, Timeout: 2 * time.Second,
			Dial: func(ctx context.Context) (net.Conn, error) {
				var n net.Dialer
				return n.DialContext(ctx, "tcp", *current.Load())
			}}
		c := nfsclient.New(cfg)
		t.Cleanup(c.Close)
		dir := d.mkdir(fmt.Sprint("client", i), 0o755)
		users.Go(func() {
			u := &user{t: t, c: c, dir: dir, rnd: rand.New(rand.NewPCG(uint64(i), 1)), files: map[string]*file{}, dirs: map[string]bool{}}
			for ctx.Err() == nil && !t.Failed() {
				u.step(t.Context())
				select {
				case steps <- struct{}{}:
				case <-ctx.Done():
				}
			}
			u.compare(t.Context())
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	former := d.srv
	for round := range 30 {
		for range 100 {
			select {
			case <-steps:
			case <-time.After(20 * time.Second):
				t.Fatal("no client gets on")
			}
		}
		// Whatever is at this point when the connection is lost: not begun, done and not answered.
		lost := errors.New("the epoch has ended")
		var left atomic.Int64
		left.Store(rnd.Int64N(4))
		d.share.Before(func(context.Context, string) error {
			if left.Add(-1) >= 0 {
				return lost
			}
			return nil
		})
		if round%3 == 0 {
			next, addr := serve(t, d.exports)
			current.Store(&addr)
			former.Drop(lost)
			former = next
		} else {
			former.Drop(lost)
		}
	}
	cancel()
	users.Wait()
}

// user is a client with a directory of its own, of which it knows everything.
type user struct {
	t     *testing.T
	c     *nfsclient.Client
	dir   nfs3.Handle
	rnd   *rand.Rand
	files map[string]*file // hard links share one
	dirs  map[string]bool
	n     int
}

type file struct {
	h     nfs3.Handle
	links uint32
	data  []byte
}

func (u *user) name() string { u.n++; return fmt.Sprint("n", u.n) }

func (u *user) pick() (string, *file) {
	if len(u.files) == 0 {
		return "", nil
	}
	names := slices.Sorted(maps.Keys(u.files))
	n := names[u.rnd.IntN(len(names))]
	return n, u.files[n]
}

func (u *user) drop(name string) {
	if f := u.files[name]; f != nil {
		f.links--
		delete(u.files, name)
	}
}

// step does one operation that must succeed.
func (u *user) step(ctx context.Context) {
	at := func(n string) nfs3.DirOp { return nfs3.DirOp{Dir: u.dir, Name: n} }
	name, f := u.pick()
	fresh := u.name()
	var err error
	what := u.rnd.IntN(9)
	switch {
	case what <= 1 || f == nil:
		var r nfsclient.Found
		if r, err = u.c.Create(ctx, nfs3.CreateArgs{Where: at(fresh), How: nfs3.Guarded}); err == nil {
			u.files[fresh] = &file{h: r.File, links: 1}
		}
	case what == 2:
		_, err = u.c.Remove(ctx, u.dir, name)
		u.drop(name)
	case what == 3:
		_, _, err = u.c.Link(ctx, f.h, at(fresh))
		f.links++
		u.files[fresh] = f
	case what == 4:
		to := fresh
		if other, o := u.pick(); o != f && u.rnd.IntN(2) == 0 {
			to = other
			u.drop(other)
		}
		_, _, err = u.c.Rename(ctx, at(name), at(to))
		delete(u.files, name)
		u.files[to] = f
	case what == 5:
		_, err = u.c.Mkdir(ctx, u.dir, fresh, nfs3.SetAttr{})
		u.dirs[fresh] = true
	case what == 6 && len(u.dirs) > 0:
		gone := slices.Sorted(maps.Keys(u.dirs))[0]
		_, err = u.c.Rmdir(ctx, u.dir, gone)
		delete(u.dirs, gone)
	default:
		p := bytes.Repeat([]byte{byte(u.n)}, 1+u.rnd.IntN(20000))
		off := u.rnd.IntN(len(f.data) + 1)
		var w nfsclient.Written
		w, err = u.c.Write(ctx, f.h, uint64(off), p, nfs3.FileSync)
		f.data = append(f.data[:off:off], append(p, f.data[min(len(f.data), off+len(p)):]...)...)
		if err == nil && (w.Wcc.After == nil || w.Wcc.After.Filesize != uint64(len(f.data)) || w.Wcc.After.Nlink != f.links) {
			u.t.Errorf("after a WRITE: %+v, want %d bytes and %d links", w.Wcc.After, len(f.data), f.links)
		}
	}
	if err != nil {
		u.t.Errorf("operation %d: %v", what, err)
	}
}

// compare compares the directory with what it should have.
func (u *user) compare(ctx context.Context) {
	all, err := u.c.List(ctx, u.dir)
	if err != nil || len(all) != len(u.files)+len(u.dirs)+2 {
		u.t.Errorf("%v: %d entries, want %d files and %d directories", err, len(all), len(u.files), len(u.dirs))
	}
	for _, e := range all {
		f := u.files[e.Name]
		if f == nil {
			if !u.dirs[e.Name] && e.Name != "." && e.Name != ".." {
				u.t.Errorf("%q should not be there", e.Name)
			}
			continue
		}
		r, err := u.c.Read(ctx, f.h, 0, nfs3.MaxIO)
		if err != nil || !bytes.Equal(r.Data, f.data) || e.Attr.Nlink != f.links || !bytes.Equal(e.File, f.h) {
			u.t.Errorf("%q: %v, %d of %d bytes, %d of %d links", e.Name, err, len(r.Data), len(f.data), e.Attr.Nlink, f.links)
		}
	}
}
