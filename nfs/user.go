package nfs

import (
	"net/netip"
	"slices"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
)

// user is who a call counts as, after squashing.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// rule returns what a client may do with an export: its most specific rule. False means no access.
func (e *Export) rule(client netip.Addr) (Rule, bool) {
	var best Rule
	found := false
	for _, r := range e.Rules {
		if r.Clients.Contains(client) && (!found || r.Clients.Bits() > best.Clients.Bits()) {
			best, found = r, true
		}
	}
	return best, found
}

// user squashes the credentials of a call.
func (r Rule) user(c sunrpc.Cred) user {
	if c.Flavor != sunrpc.AuthSys || r.Squash == SquashAll {
		return user{uid: r.AnonUID, gid: r.AnonGID}
	}
	u := user{uid: c.UID, gid: c.GID, groups: c.Groups}
	if r.Squash == SquashRoot {
		if u.uid == 0 {
			u.uid = r.AnonUID
		}
		if u.gid == 0 {
			u.gid = r.AnonGID
		}
		u.groups = slices.Clone(u.groups)
		for i, g := range u.groups {
			if g == 0 {
				u.groups[i] = r.AnonGID
			}
		}
	}
	return u
}

func (u user) root() bool             { return u.uid == 0 }
func (u user) owns(a nfs3.Attr) bool  { return u.root() || u.uid == a.UID }
func (u user) member(gid uint32) bool { return u.gid == gid || slices.Contains(u.groups, gid) }

// Permissions as the bits of one digit of a mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayExec  = 1
)

// mode bits beyond the permissions
const (
	setUID = 0o4000
	setGID = 0o2000
	sticky = 0o1000
)

// has returns the permissions of u by the mode bits. Root may read and write everything, search every directory, and
// execute what anybody may.
func (u user) has(a nfs3.Attr) uint32 {
	if u.root() {
		if a.Type == nfs3.Directory || a.FileMode&0o111 != 0 {
			return mayRead | mayWrite | mayExec
		}
		return mayRead | mayWrite
	}
	switch {
	case u.uid == a.UID:
		return a.FileMode >> 6 & 7
	case u.member(a.GID):
		return a.FileMode >> 3 & 7
	}
	return a.FileMode & 7
}

// may tells whether u has all of the wanted permissions.
func (u user) may(a nfs3.Attr, want uint32) bool { return u.has(a)&want == want }

// mayData is may for READ and WRITE: the server does not know when a file was opened. Its owner may have done so before he
// took the permission from himself, and whoever executes a file reads it (RFC 1813 4.4).
func (u user) mayData(a nfs3.Attr, want uint32) bool {
	return u.owns(a) || u.may(a, want) || want == mayRead && u.may(a, mayExec)
}

// mayTake tells whether u, who may write to dir, may take the name of a file out of it: not somebody else's out of a sticky one.
func (u user) mayTake(dir, file nfs3.Attr) bool {
	return dir.FileMode&sticky == 0 || u.owns(dir) || u.owns(file)
}

// access answers ACCESS.
func (u user) access(a nfs3.Attr, readOnly bool) uint32 {
	has := u.has(a)
	var bits uint32
	if has&mayRead != 0 {
		bits |= nfs3.AccessRead
	}
	if has&mayWrite != 0 && !readOnly {
		bits |= nfs3.AccessModify | nfs3.AccessExtend
		if a.Type == nfs3.Directory {
			bits |= nfs3.AccessDelete
		}
	}
	if has&mayExec != 0 {
		if a.Type == nfs3.Directory {
			bits |= nfs3.AccessLookup
		} else {
			bits |= nfs3.AccessExecute
		}
	}
	return bits
}

// change decides on a SETATTR of a file with attributes a, and returns it with what follows from it.
func (u user) change(a nfs3.Attr, s nfs3.SetAttr) (nfs3.SetAttr, error) {
	mode := a.FileMode
	if err := valid(s); err != nil {
		return s, err
	}
	switch {
	case s.UID != nil && *s.UID != a.UID && !u.root(), s.GID != nil && *s.GID != a.GID && !u.root() && !(u.owns(a) && u.member(*s.GID)),
		(s.Mode != nil || s.UID != nil || s.GID != nil) && !u.owns(a), s.Atime.How == nfs3.ToClientTime && !u.owns(a),
		s.Mtime.How == nfs3.ToClientTime && !u.owns(a):
		return s, nfs3.ErrPerm
	case s.Size != nil && !u.mayData(a, mayWrite):
		return s, nfs3.ErrAccess
	case (s.Atime.How == nfs3.ToServerTime || s.Mtime.How == nfs3.ToServerTime) && !u.owns(a) && !u.may(a, mayWrite):
		return s, nfs3.ErrAccess
	}
	if s.Mode != nil {
		mode = *s.Mode
	}
	if a.Type != nfs3.Directory {
		chown := s.UID != nil && *s.UID != a.UID || s.GID != nil && *s.GID != a.GID
		if s.Mode == nil && (chown || s.Size != nil && !u.root()) {
			mode = dropSetID(mode)
		}
	}
	group := a.GID
	if s.GID != nil {
		group = *s.GID
	}
	if s.Mode != nil && !u.root() && !u.member(group) {
		mode &^= setGID // POSIX chmod
	}
	if s.Mode != nil || mode != a.FileMode {
		s.Mode = &mode
	}
	return s, nil
}

// valid checks what no file can be set to.
func valid(s nfs3.SetAttr) error {
	for _, t := range [...]nfs3.SetTime{s.Atime, s.Mtime} {
		if t.How == nfs3.ToClientTime && t.Time.Nseconds > 999_999_999 {
			return nfs3.ErrInval
		}
	}
	if s.Size != nil && *s.Size > nfs3.MaxFile {
		return nfs3.ErrFBig
	}
	return nil
}

// dropSetID takes from a mode what lets a program run as somebody else: its bytes or its owner have changed. Without
// execution by the group the second bit means locking.
func dropSetID(mode uint32) uint32 {
	mode &^= setUID
	if mode&0o010 != 0 {
		mode &^= setGID
	}
	return mode
}

// created completes the attributes of a file that u makes in dir.
func (u user) created(dir nfs3.Attr, t nfs3.FileType, s nfs3.SetAttr) nfs3.SetAttr {
	uid, gid, mode := u.uid, u.gid, uint32(0o600)
	switch t {
	case nfs3.Directory:
		mode = 0o700
	case nfs3.Symlink:
		mode = 0o777
	}
	if s.Mode != nil && t != nfs3.Symlink {
		mode = *s.Mode
	}
	if dir.FileMode&setGID != 0 {
		gid = dir.GID
		if t == nfs3.Directory {
			mode |= setGID
		}
	}
	if s.UID != nil && u.root() {
		uid = *s.UID
	}
	if s.GID != nil && (u.root() || u.member(*s.GID)) {
		gid = *s.GID
	}
	if t != nfs3.Directory && !u.root() && !u.member(gid) {
		mode &^= setGID
	}
	s.UID, s.GID, s.Mode = &uid, &gid, &mode
	return s
}
