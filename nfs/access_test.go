package nfs_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
	"pmsapp/nfs"
)

const (
	r = nfs3.AccessRead
	l = nfs3.AccessLookup
	w = nfs3.AccessModify | nfs3.AccessExtend
	x = nfs3.AccessExecute
	d = nfs3.AccessDelete
)

func TestAccess(t *testing.T) {
	o, ctx := open(t), t.Context()
	f, dir := o.file("f", 0o754, ""), o.mkdir("dir", 0o754)
	data := o.file("data", 0o640, "")
	for _, h := range []nfs3.Handle{f, dir, data} {
		o.chown(h, 10, 20)
	}
	for _, c := range []struct {
		name            string
		cred            sunrpc.Cred
		file, dir, data uint32
	}{
		{"root", sunrpc.Cred{Flavor: 1}, r | w | x, r | w | l | d, r | w},
		{"the owner", sunrpc.Cred{Flavor: 1, UID: 10, GID: 99}, r | w | x, r | w | l | d, r | w},
		{"the group", sunrpc.Cred{Flavor: 1, UID: 11, GID: 20}, r | x, r | l, r},
		{"a supplementary group", sunrpc.Cred{Flavor: 1, UID: 11, GID: 9, Groups: []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20}}, r | x, r | l, r},
		{"others", sunrpc.Cred{Flavor: 1, UID: 11, GID: 21}, r, r, 0},
		{"nobody", sunrpc.Cred{}, r, r, 0},
	} {
		cl := o.client(c.cred)
		for h, bits := range map[string]uint32{string(f): c.file, string(dir): c.dir, string(data): c.data} {
			if got, attr, err := cl.Access(ctx, nfs3.Handle(h), 63); err != nil || attr == nil || got != bits {
				t.Errorf("%s: %v %06b, want %06b", c.name, err, got, bits)
			}
		}
	}
	if got, _, err := o.c.Access(ctx, f, r); err != nil || got != r {
		t.Errorf("more than was asked: %v %b", err, got)
	}
	o.rule(func(u *nfs.Rule) { u.ReadOnly = true })
	if got, _, err := o.c.Access(ctx, dir, 63); err != nil || got != r|l {
		t.Errorf("read-only: %v %b", err, got)
	}
}

func TestPermissions(t *testing.T) {
	o, ctx := open(t), t.Context()
	owner, group, other := o.user(10, 99), o.user(11, 99, 20), o.user(12, 99)
	f := o.file("f", 0o640, "data")
	closed := o.file("closed", 0o000, "data")
	program := o.file("program", 0o711, "data")
	o.chown(f, 10, 20)
	o.chown(closed, 10, 20)
	o.chown(program, 13, 30)
	_, err := group.Read(ctx, f, 0, 9)
	want(t, "the group reads", err, nil)
	_, err = group.Write(ctx, f, 0, []byte("x"), 0)
	want(t, "the group writes", err, nfs3.ErrAccess)
	_, err = group.Commit(ctx, f, 0, 0)
	want(t, "the group commits", err, nfs3.ErrAccess)
	_, err = other.Read(ctx, f, 0, 9)
	want(t, "others read", err, nfs3.ErrAccess)
	_, err = owner.Read(ctx, closed, 0, 9)
	want(t, "the owner reads what was open", err, nil)
	_, err = owner.Write(ctx, closed, 0, []byte("x"), 0)
	want(t, "the owner writes what was open", err, nil)
	_, err = other.Read(ctx, program, 0, 9)
	want(t, "others read what they execute", err, nil)
	_, err = other.Write(ctx, program, 0, []byte("x"), 0)
	want(t, "others write what they execute", err, nfs3.ErrAccess)
	if o.share.Calls("Confirm") == 0 {
		t.Error("denials are not confirmed")
	}

	_, err = other.Setattr(ctx, f, mode(0o777), nil)
	want(t, "others chmod", err, nfs3.ErrPerm)
	_, err = owner.Setattr(ctx, f, mode(0o644), nil)
	want(t, "the owner's chmod", err, nil)
	_, err = owner.Setattr(ctx, f, nfs3.SetAttr{UID: ptr(uint32(11))}, nil)
	want(t, "the owner gives it away", err, nfs3.ErrPerm)
	_, err = owner.Setattr(ctx, f, nfs3.SetAttr{UID: ptr(uint32(10))}, nil)
	want(t, "the owner keeps it", err, nil)
	_, err = owner.Setattr(ctx, f, nfs3.SetAttr{GID: ptr(uint32(77))}, nil)
	want(t, "the owner gives it to a group of others", err, nfs3.ErrPerm)
	_, err = owner.Setattr(ctx, f, nfs3.SetAttr{GID: ptr(uint32(99))}, nil)
	want(t, "the owner gives it to a group of his", err, nil)
	_, err = other.Setattr(ctx, f, nfs3.SetAttr{Size: ptr(uint64(0))}, nil)
	want(t, "others truncate", err, nfs3.ErrAccess)
	_, err = other.Setattr(ctx, f, nfs3.SetAttr{Mtime: nfs3.SetTime{How: nfs3.ToServerTime}}, nil)
	want(t, "others touch", err, nfs3.ErrAccess)
	world := o.file("world", 0o666, "")
	_, err = other.Setattr(ctx, world, nfs3.SetAttr{Mtime: nfs3.SetTime{How: nfs3.ToServerTime}}, nil)
	want(t, "whoever may write touches", err, nil)
	_, err = other.Setattr(ctx, world, nfs3.SetAttr{Mtime: nfs3.SetTime{How: nfs3.ToClientTime}}, nil)
	want(t, "whoever may write sets a time", err, nfs3.ErrPerm)
}

func TestSetID(t *testing.T) {
	o, ctx := open(t), t.Context()
	get := func(h nfs3.Handle) uint32 {
		a, err := o.c.Getattr(ctx, h)
		if err != nil {
			t.Fatal(err)
		}
		return a.FileMode
	}
	f := o.file("f", 0o6777, "")
	if m := get(f); m != 0o6777 {
		t.Fatalf("%o", m)
	}
	_, err := o.c.Write(ctx, f, 0, []byte("x"), 0)
	if want(t, "root writes", err, nil); get(f) != 0o6777 {
		t.Errorf("root: %o", get(f))
	}
	_, err = o.user(5, 5).Write(ctx, f, 0, []byte("x"), 0)
	if want(t, "a user writes", err, nil); get(f) != 0o777 {
		t.Errorf("after a user's WRITE: %o", get(f))
	}
	g := o.file("g", 0o6755, "")
	if o.chown(g, 5, 5); get(g) != 0o755 {
		t.Errorf("after a change of owner: %o", get(g))
	}
	_, err = o.user(5, 6).Setattr(ctx, g, mode(0o2755), nil)
	if want(t, "chmod", err, nil); get(g) != 0o755 {
		t.Errorf("set-group-id by who is not in the group: %o", get(g))
	}
	dir := o.mkdir("dir", 0o2777)
	o.chown(dir, 1, 77)
	u := o.user(5, 6)
	r, err := u.Create(ctx, nfs3.CreateArgs{Where: at(dir, "f"), Attr: mode(0o644)})
	if err != nil || r.Attr.UID != 5 || r.Attr.GID != 77 {
		t.Errorf("in a set-group-id directory: %v %+v", err, r.Attr)
	}
	r, err = u.Mkdir(ctx, dir, "d", mode(0o755))
	if err != nil || r.Attr.GID != 77 || r.Attr.FileMode != 0o2755 {
		t.Errorf("a directory there: %v %+v", err, r.Attr)
	}
	r, err = u.Create(ctx, nfs3.CreateArgs{Where: at(o.root, "mine"), Attr: nfs3.SetAttr{UID: ptr(uint32(0)), GID: ptr(uint32(0)), Mode: ptr(uint32(0o644))}})
	if err != nil || r.Attr.UID != 5 || r.Attr.GID != 6 {
		t.Errorf("a file made for root by a user: %v %+v", err, r.Attr)
	}
}

func TestDirectoryPermissions(t *testing.T) {
	o, ctx := open(t), t.Context()
	u := o.user(10, 20)
	closed := o.mkdir("closed", 0o700)
	listed := o.mkdir("listed", 0o744)
	for _, h := range []nfs3.Handle{closed, listed} {
		if _, err := o.c.Create(ctx, nfs3.CreateArgs{Where: at(h, "f")}); err != nil {
			t.Fatal(err)
		}
		_, err := u.Lookup(ctx, h, "f")
		want(t, "LOOKUP", err, nfs3.ErrAccess)
		_, err = u.Create(ctx, nfs3.CreateArgs{Where: at(h, "g")})
		want(t, "CREATE", err, nfs3.ErrAccess)
		_, err = u.Remove(ctx, h, "f")
		want(t, "REMOVE", err, nfs3.ErrAccess)
		_, _, err = u.Rename(ctx, at(h, "f"), at(o.root, "f"))
		want(t, "RENAME", err, nfs3.ErrAccess)
		_, _, err = u.Link(ctx, o.root, at(h, "g"))
		want(t, "LINK", err, nfs3.ErrAccess)
	}
	_, err := u.List(ctx, closed)
	want(t, "READDIRPLUS", err, nfs3.ErrAccess)
	_, err = u.List(ctx, listed)
	want(t, "READDIRPLUS of what may be read", err, nil)

	tmp := o.mkdir("tmp", 0o1777)
	if _, err := o.user(11, 20).Create(ctx, nfs3.CreateArgs{Where: at(tmp, "other")}); err != nil {
		t.Fatal(err)
	}
	_, err = u.Create(ctx, nfs3.CreateArgs{Where: at(tmp, "mine")})
	want(t, "CREATE in a sticky directory", err, nil)
	_, err = u.Remove(ctx, tmp, "other")
	want(t, "REMOVE of another's in a sticky directory", err, nfs3.ErrPerm)
	_, _, err = u.Rename(ctx, at(tmp, "mine"), at(tmp, "other"))
	want(t, "RENAME over another's in a sticky directory", err, nfs3.ErrPerm)
	_, err = u.Remove(ctx, tmp, "mine")
	want(t, "REMOVE of one's own in a sticky directory", err, nil)
	shared, another := o.mkdir("shared", 0o777), o.mkdir("another", 0o777)
	if _, err := o.c.Mkdir(ctx, shared, "roots", mode(0o755)); err != nil {
		t.Fatal(err)
	}
	_, _, err = u.Rename(ctx, at(shared, "roots"), at(another, "roots"))
	want(t, "moving a directory that one may not write", err, nfs3.ErrAccess)
	_, _, err = u.Rename(ctx, at(shared, "roots"), at(shared, "renamed"))
	want(t, "renaming it in its place", err, nil)
}

// TestNamesThatMove: what was checked by a name is not done to another file that has it by then: what one may take away or cut is replaced
// by what one may not, in the moment between.
func TestNamesThatMove(t *testing.T) {
	o, ctx := open(t), t.Context()
	victim, attacker := o.user(10, 20), o.user(11, 20)
	tmp, open := o.mkdir("tmp", 0o1777), o.mkdir("open", 0o777)
	made := func(c *nfsclient.Client, dir nfs3.Handle, name string) nfs3.Handle {
		t.Helper()
		r, err := c.Create(ctx, nfs3.CreateArgs{Where: at(dir, name), How: nfs3.Guarded, Attr: mode(0o600)})
		if err != nil {
			t.Fatal(err)
		}
		return r.File
	}
	for _, c := range []struct {
		what, method string
		begin, swap  func() error
		do           func() error
		err          error
	}{
		{"REMOVE", "Remove", func() error { made(attacker, tmp, "a"); return nil },
			func() error { _, err := o.c.Remove(ctx, tmp, "a"); made(victim, tmp, "a"); return err },
			func() error { _, err := attacker.Remove(ctx, tmp, "a"); return err }, nfs3.ErrPerm},
		{"RENAME over nothing", "Rename", func() error { made(attacker, tmp, "b"); return nil },
			func() error { made(victim, tmp, "c"); return nil },
			func() error { _, _, err := attacker.Rename(ctx, at(tmp, "b"), at(tmp, "c")); return err }, nfs3.ErrPerm},
		{"RENAME of another's", "Rename", func() error { made(attacker, tmp, "d"); return nil },
			func() error { _, err := o.c.Remove(ctx, tmp, "d"); made(victim, tmp, "d"); return err },
			func() error { _, _, err := attacker.Rename(ctx, at(tmp, "d"), at(open, "d")); return err }, nfs3.ErrPerm},
		{"CREATE that cuts", "Create", func() error { return nil },
			func() error {
				f := made(victim, open, "secret")
				if _, err := victim.Write(ctx, f, 0, []byte("secret"), nfs3.FileSync); err != nil {
					return err
				}
				_, _, err := attacker.Link(ctx, f, at(open, "e"))
				return err
			},
			func() error {
				_, err := attacker.Create(ctx, nfs3.CreateArgs{Where: at(open, "e"), How: nfs3.Unchecked, Attr: nfs3.SetAttr{Size: new(uint64)}})
				return err
			}, nfs3.ErrAccess},
	} {
		if err := c.begin(); err != nil {
			t.Fatal(c.what, err)
		}
		var swapped atomic.Bool
		o.share.Before(func(_ context.Context, method string) error {
			if method != c.method || !swapped.CompareAndSwap(false, true) {
				return nil
			}
			return c.swap()
		})
		want(t, c.what, c.do(), c.err)
		o.share.Before(nil)
		if !swapped.Load() {
			t.Error(c.what, ": nothing was swapped")
		}
	}
	h, err := victim.Lookup(ctx, open, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := victim.Read(ctx, h.File, 0, 10); err != nil || string(r.Data) != "secret" {
		t.Errorf("%q, %v", r.Data, err)
	}
	for name, in := range map[string]nfs3.Handle{"a": tmp, "c": tmp, "d": tmp} {
		_, err := victim.Remove(ctx, in, name)
		want(t, name+" is there, and the victim's", err, nil)
	}
}

func TestSquash(t *testing.T) {
	o, ctx := open(t), t.Context()
	owner := func(c sunrpc.Cred, name string) (uint32, uint32) {
		r, err := o.client(c).Create(ctx, nfs3.CreateArgs{Where: at(o.root, name)})
		if err != nil {
			t.Fatal(name, err)
		}
		return r.Attr.UID, r.Attr.GID
	}
	root, user := sunrpc.Cred{Flavor: 1}, sunrpc.Cred{Flavor: 1, UID: 5, GID: 6}
	n := 0
	for _, c := range []struct {
		squash   nfs.Squash
		cred     sunrpc.Cred
		uid, gid uint32
	}{
		{nfs.SquashNone, root, 0, 0}, {nfs.SquashNone, user, 5, 6}, {nfs.SquashNone, sunrpc.Cred{}, 100, 101},
		{nfs.SquashRoot, root, 100, 101}, {nfs.SquashRoot, user, 5, 6}, {nfs.SquashRoot, sunrpc.Cred{}, 100, 101},
		{nfs.SquashAll, root, 100, 101}, {nfs.SquashAll, user, 100, 101}, {nfs.SquashAll, sunrpc.Cred{}, 100, 101},
	} {
		o.rule(func(u *nfs.Rule) { u.Squash, u.AnonUID, u.AnonGID = c.squash, 100, 101 })
		n++
		if uid, gid := owner(c.cred, string(rune('a'+n))); uid != c.uid || gid != c.gid {
			t.Errorf("squash %d, uid %d: %d %d", c.squash, c.cred.UID, uid, gid)
		}
	}
	o.rule(func(u *nfs.Rule) { u.Squash, u.AnonUID, u.AnonGID = nfs.SquashRoot, 100, 101 })
	secret := o.file("secret", 0o640, "")
	o.rule(func(*nfs.Rule) {})
	o.chown(secret, 1, 0)
	o.rule(func(u *nfs.Rule) { u.Squash, u.AnonUID, u.AnonGID = nfs.SquashRoot, 100, 101 })
	_, err := o.user(5, 6, 0).Read(ctx, secret, 0, 1)
	want(t, "root's group among the supplementary ones", err, nfs3.ErrAccess)
}

func TestReadOnlyAndAddresses(t *testing.T) {
	o, ctx := open(t), t.Context()
	f := o.file("f", 0o666, "x")
	o.rule(func(u *nfs.Rule) { u.ReadOnly = true })
	for name, call := range map[string]func() error{
		"WRITE":   func() error { _, err := o.c.Write(ctx, f, 0, []byte("y"), 0); return err },
		"SETATTR": func() error { _, err := o.c.Setattr(ctx, f, mode(0), nil); return err },
		"CREATE":  func() error { _, err := o.c.Create(ctx, nfs3.CreateArgs{Where: at(o.root, "g")}); return err },
		"MKDIR":   func() error { _, err := o.c.Mkdir(ctx, o.root, "g", nfs3.SetAttr{}); return err },
		"SYMLINK": func() error { _, err := o.c.Symlink(ctx, o.root, "g", "h"); return err },
		"MKNOD": func() error {
			_, err := o.c.Mknod(ctx, nfs3.MknodArgs{Where: at(o.root, "g"), Type: nfs3.FIFO})
			return err
		},
		"REMOVE": func() error { _, err := o.c.Remove(ctx, o.root, "f"); return err },
		"RMDIR":  func() error { _, err := o.c.Rmdir(ctx, o.root, "f"); return err },
		"RENAME": func() error { _, _, err := o.c.Rename(ctx, at(o.root, "f"), at(o.root, "g")); return err },
		"LINK":   func() error { _, _, err := o.c.Link(ctx, f, at(o.root, "g")); return err },
	} {
		want(t, name+" of a read-only export", call(), nfs3.ErrROFS)
	}
	_, err := o.c.Read(ctx, f, 0, 1)
	want(t, "READ of a read-only export", err, nil)

	e := o.export
	e.Rules = []nfs.Rule{{Clients: netip.MustParsePrefix("127.0.0.0/8")}, {Clients: netip.MustParsePrefix("0.0.0.0/0"), ReadOnly: true},
		{Clients: netip.MustParsePrefix("127.0.0.1/32"), ReadOnly: true}}
	o.exports.Set(e)
	_, err = o.c.Remove(ctx, o.root, "f")
	want(t, "the most specific rule is the read-only one", err, nfs3.ErrROFS)
	e.Rules = e.Rules[:2]
	o.exports.Set(e)
	_, err = o.c.Remove(ctx, o.root, "f")
	want(t, "the most specific rule is the middle one", err, nil)
	e.Rules = []nfs.Rule{{Clients: netip.MustParsePrefix("192.0.2.0/24")}}
	o.exports.Set(e)
	_, err = o.c.Getattr(ctx, o.root)
	want(t, "a client without a rule", err, nfs3.ErrAccess)
	_, _, err = o.c.Mount(ctx, "/vol")
	want(t, "a mount without a rule", err, nfs3.ErrAccess)
}
