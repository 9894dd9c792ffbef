// Package nfstest has a user of an NFS share that knows what must be there, for tests with failovers.
package nfstest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

// User works in a directory of its own, of which it knows everything: each of its operations must succeed, and have its
// effect once. A MKDIR that is done twice says EXIST, a REMOVE NOENT; a WRITE that is lost, or comes late, shows.
type User struct {
	c     *nfsclient.Client
	dir   nfs3.Handle
	rnd   *rand.Rand
	files map[string]*file // hard links share one
	dirs  map[string]bool
	names int
}

type file struct {
	h     nfs3.Handle
	links uint32
	data  []byte
	ctime nfs3.Time
}

// maxFiles and maxSize bound what a User makes, in names and in bytes of a file.
const (
	maxFiles = 200
	maxSize  = 200_000
)

// NewUser returns a User of an empty directory.
func NewUser(c *nfsclient.Client, dir nfs3.Handle, rnd *rand.Rand) *User {
	return &User{c: c, dir: dir, rnd: rnd, files: map[string]*file{}, dirs: map[string]bool{}}
}

// pick returns any of the files; nil if there is none.
func (u *User) pick() (string, *file) {
	if len(u.files) == 0 {
		return "", nil
	}
	names := slices.Sorted(maps.Keys(u.files))
	n := names[u.rnd.IntN(len(names))]
	return n, u.files[n]
}

func (u *User) drop(name string) {
	if f := u.files[name]; f != nil {
		f.links--
		delete(u.files, name)
	}
}

func (u *User) at(name string) nfs3.DirOp { return nfs3.DirOp{Dir: u.dir, Name: name} }

// Step does one operation. Its error is a fault of the server, or the context's.
func (u *User) Step(ctx context.Context) error {
	name, f := u.pick()
	u.names++
	fresh := fmt.Sprint("n", u.names)
	what := u.rnd.IntN(12)
	if len(u.files)+len(u.dirs) > maxFiles {
		what = 2
	}
	var err error
	switch {
	case f == nil || what <= 1:
		err = u.create(ctx, fresh)
	case what == 2:
		_, err = u.c.Remove(ctx, u.dir, name)
		u.drop(name)
	case what == 3:
		_, _, err = u.c.Link(ctx, f.h, u.at(fresh))
		f.links++
		u.files[fresh] = f
	case what == 4:
		err = u.rename(ctx, name, f, fresh)
	case what == 5:
		_, err = u.c.Mkdir(ctx, u.dir, fresh, nfs3.SetAttr{})
		u.dirs[fresh] = true
	case what == 6 && len(u.dirs) > 0:
		gone := slices.Sorted(maps.Keys(u.dirs))[0]
		_, err = u.c.Rmdir(ctx, u.dir, gone)
		delete(u.dirs, gone)
	case what == 7:
		err = u.truncate(ctx, f)
	case what == 8:
		err = u.read(ctx, f)
	default:
		err = u.write(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("operation %d of %s: %w", what, name, err)
	}
	return nil
}

func (u *User) create(ctx context.Context, name string) error {
	a := nfs3.CreateArgs{Where: u.at(name), How: nfs3.CreateMode(u.rnd.IntN(3)), Verifier: nfs3.Verifier{byte(u.names), byte(u.names >> 8)}}
	r, err := u.c.Create(ctx, a)
	if err == nil {
		u.files[name] = &file{h: r.File, links: 1}
	}
	return err
}

func (u *User) rename(ctx context.Context, name string, f *file, to string) error {
	if other, o := u.pick(); o != f && u.rnd.IntN(2) == 0 {
		to = other
		u.drop(other)
	}
	_, _, err := u.c.Rename(ctx, u.at(name), u.at(to))
	delete(u.files, name)
	u.files[to] = f
	return err
}

func (u *User) truncate(ctx context.Context, f *file) error {
	size := uint64(u.rnd.IntN(len(f.data) + 10_000))
	w, err := u.c.Setattr(ctx, f.h, nfs3.SetAttr{Size: &size}, nil)
	f.data = append(f.data, make([]byte, max(0, int(size)-len(f.data)))...)[:size]
	if err != nil {
		return err
	}
	return u.seen(f, w.After)
}

func (u *User) write(ctx context.Context, f *file) error {
	p := bytes.Repeat([]byte{byte(u.names)}, 1+u.rnd.IntN(20_000))
	off := u.rnd.IntN(min(len(f.data), maxSize) + 1)
	w, err := u.c.Write(ctx, f.h, uint64(off), p, nfs3.Stable(u.rnd.IntN(3)))
	if err == nil && (int(w.Count) != len(p)) {
		err = fmt.Errorf("%d of %d bytes written", w.Count, len(p))
	}
	f.data = append(f.data[:off:off], append(p, f.data[min(len(f.data), off+len(p)):]...)...)
	if err == nil && w.Committed == nfs3.Unstable {
		// What was lost before this shows in another verifier: to write it again is a user's part that is not played here.
		var c nfsclient.Written
		if c, err = u.c.Commit(ctx, f.h, 0, 0); err == nil && c.Verifier != w.Verifier {
			w, err = u.c.Write(ctx, f.h, 0, f.data, nfs3.FileSync)
		}
	}
	if err != nil {
		return err
	}
	return u.seen(f, w.Wcc.After)
}

func (u *User) read(ctx context.Context, f *file) error {
	off := u.rnd.IntN(len(f.data) + 1)
	n := u.rnd.IntN(100_000)
	r, err := u.c.Read(ctx, f.h, uint64(off), uint32(n))
	if err != nil {
		return err
	}
	want := f.data[off:min(len(f.data), off+n)]
	if !bytes.Equal(r.Data, want) {
		return fmt.Errorf("%d bytes at %d are not the %d that were written", len(r.Data), off, len(want))
	}
	return u.seen(f, r.Attr)
}

// seen compares attributes with what they must be, and holds that a ctime never goes back.
func (u *User) seen(f *file, a *nfs3.Attr) error {
	switch {
	case a == nil:
		return nil
	case a.Filesize != uint64(len(f.data)) || a.Nlink != f.links:
		return fmt.Errorf("%d bytes and %d links are seen, not %d and %d", a.Filesize, a.Nlink, len(f.data), f.links)
	case a.Ctime.Seconds < f.ctime.Seconds || a.Ctime.Seconds == f.ctime.Seconds && a.Ctime.Nseconds < f.ctime.Nseconds:
		return fmt.Errorf("the ctime went back from %v to %v", f.ctime, a.Ctime)
	}
	f.ctime = a.Ctime
	return nil
}

// Compare compares the directory with what must be in it.
func (u *User) Compare(ctx context.Context) error {
	all, err := u.c.List(ctx, u.dir)
	if err != nil {
		return err
	}
	if len(all) != len(u.files)+len(u.dirs)+2 {
		return fmt.Errorf("%d entries, not %d files and %d directories", len(all), len(u.files), len(u.dirs))
	}
	for _, e := range all {
		f := u.files[e.Name]
		switch {
		case f == nil && !u.dirs[e.Name] && e.Name != "." && e.Name != "..":
			return fmt.Errorf("%q must not be there", e.Name)
		case f == nil:
			continue
		case !bytes.Equal(e.File, f.h):
			return fmt.Errorf("%q has another handle than when it was made", e.Name)
		}
		if err := u.seen(f, e.Attr); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		r, err := u.c.Read(ctx, f.h, 0, nfs3.MaxIO)
		if err != nil {
			return err
		}
		if !bytes.Equal(r.Data, f.data) {
			return fmt.Errorf("%q: %d bytes, not the %d that were written", e.Name, len(r.Data), len(f.data))
		}
	}
	return nil
}
