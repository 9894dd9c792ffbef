package treesim

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
)

// never is the time of an answer that does not come.
const never = math.MaxInt64

// nameOp is a call about names, and its answer.
type nameOp struct {
	kind           nameKind
	dir, dir2, ino uint64
	name, name2    string

	call, ret int64
	unknown   bool // not answered: it has its effect or not
	status    nfs3.Status
	got       uint64  // an inode
	links     uint32  // of a stat that was answered with them, else 0
	list      []entry // of a listing
}

type nameKind uint8

const (
	opCreate nameKind = iota // guarded
	opOpen                   // an unchecked create
	opMkdir
	opRemove
	opRmdir
	opLink
	opRename
	opLookup
	opList
	opStat
)

func (o *nameOp) String() string {
	kind := [...]string{"create", "open", "mkdir", "remove", "rmdir", "link", "rename", "lookup", "list", "stat"}[o.kind]
	return fmt.Sprintf("[%d,%d] %s dir %d %q ino %d to dir %d %q: %v, got %d, links %d, %v (unknown %v)", o.call, o.ret, kind, o.dir, o.name, o.ino, o.dir2, o.name2, o.status, o.got, o.links, o.list, o.unknown)
}

// entry is a name in a directory.
type entry struct {
	dir  uint64
	name string
	ino  uint64
}

func order(a, b entry) int {
	if a.dir != b.dir {
		return int(int64(a.dir) - int64(b.dir))
	}
	return strings.Compare(a.name, b.name)
}

// names is the model of the tree: all entries, sorted. It is never changed.
type names []entry

// tree is the model with what does not change: which inodes are directories.
type tree struct{ dirs map[uint64]bool }

func (n names) find(dir uint64, name string) (uint64, bool) {
	i, ok := slices.BinarySearchFunc(n, entry{dir: dir, name: name}, order)
	if !ok {
		return 0, false
	}
	return n[i].ino, true
}

func (n names) with(e entry) names {
	i, _ := slices.BinarySearchFunc(n, e, order)
	return slices.Insert(slices.Clone(n), i, e)
}

func (n names) without(dir uint64, name string) names {
	i, _ := slices.BinarySearchFunc(n, entry{dir: dir, name: name}, order)
	return slices.Delete(slices.Clone(n), i, i+1)
}

// links counts the names of an inode, and what it has if it is a directory.
func (n names) links(ino uint64) (links, children int) {
	for _, e := range n {
		if e.ino == ino {
			links++
		}
		if e.dir == ino {
			children++
		}
	}
	return links, children
}

func (n names) live(ino uint64) bool {
	links, _ := n.links(ino)
	return ino == filetree.Root || links > 0
}

// below tells whether dir is moved, or is in it.
func (n names) below(dir, moved uint64) bool {
	for dir != filetree.Root {
		if dir == moved {
			return true
		}
		i := slices.IndexFunc(n, func(e entry) bool { return e.ino == dir })
		if i < 0 {
			return false
		}
		dir = n[i].dir
	}
	return false
}

// do returns the state after a call, and what it is answered. made is the inode of what is made.
func (t tree) do(n names, o *nameOp, made uint64) (next names, status nfs3.Status, got uint64) {
	ino, exists := n.find(o.dir, o.name)
	_, children := n.links(ino)
	if o.kind != opStat && !n.live(o.dir) || o.kind == opRename && !n.live(o.dir2) || (o.kind == opStat || o.kind == opLink) && !n.live(o.ino) {
		return n, nfs3.ErrStale, 0
	}
	switch o.kind {
	case opCreate, opMkdir, opOpen:
		switch {
		case exists && o.kind == opOpen && !t.dirs[ino]:
			return n, nfs3.OK, ino
		case exists:
			return n, nfs3.ErrExist, 0
		case n.live(made):
			return n, nfs3.ErrServerFault, 0 // two files are one
		}
		return n.with(entry{o.dir, o.name, made}), nfs3.OK, made
	case opLookup:
		if !exists {
			return n, nfs3.ErrNoEnt, 0
		}
		return n, nfs3.OK, ino
	case opLink:
		if exists {
			return n, nfs3.ErrExist, 0
		}
		return n.with(entry{o.dir, o.name, o.ino}), nfs3.OK, 0
	case opRemove, opRmdir:
		switch {
		case !exists:
			return n, nfs3.ErrNoEnt, 0
		case o.kind == opRemove && t.dirs[ino]:
			return n, nfs3.ErrIsDir, 0
		case o.kind == opRmdir && !t.dirs[ino]:
			return n, nfs3.ErrNotDir, 0
		case children > 0:
			return n, nfs3.ErrNotEmpty, 0
		}
		return n.without(o.dir, o.name), nfs3.OK, 0
	case opRename:
		return t.rename(n, o)
	}
	return n, nfs3.OK, 0
}

func (t tree) rename(n names, o *nameOp) (names, nfs3.Status, uint64) {
	ino, exists := n.find(o.dir, o.name)
	old, replaces := n.find(o.dir2, o.name2)
	_, children := n.links(old)
	switch {
	case !exists:
		return n, nfs3.ErrNoEnt, 0
	case replaces && old == ino:
		return n, nfs3.OK, 0
	case t.dirs[ino] && n.below(o.dir2, ino):
		return n, nfs3.ErrInval, 0
	case replaces && t.dirs[ino] && !t.dirs[old]:
		return n, nfs3.ErrNotDir, 0
	case replaces && !t.dirs[ino] && t.dirs[old]:
		return n, nfs3.ErrIsDir, 0
	case replaces && children > 0:
		return n, nfs3.ErrNotEmpty, 0
	}
	n = n.without(o.dir, o.name)
	if replaces {
		n = n.without(o.dir2, o.name2)
	}
	return n.with(entry{o.dir2, o.name2, ino}), nfs3.OK, 0
}

// step tells what states a call leads to from one, if its answer fits.
func (t tree) step(n names, o *nameOp) []any {
	next, status, got := t.do(n, o, o.got)
	if o.unknown {
		if status != nfs3.OK {
			return []any{n}
		}
		return []any{n, next}
	}
	if o.status == nfs3.ErrNoSpace && o.kind <= opRename { // the tree may be full
		return []any{n}
	}
	fits := status == o.status && got == o.got
	switch {
	case !fits:
	case o.kind == opList && status == nfs3.OK:
		var list []entry
		for _, e := range n {
			if e.dir == o.dir {
				list = append(list, e)
			}
		}
		fits = slices.Equal(list, o.list)
	case o.kind == opStat && o.links > 0:
		links, _ := n.links(o.ino)
		if t.dirs[o.ino] || o.ino == filetree.Root {
			links = 2
			for _, e := range n {
				if e.dir == o.ino && t.dirs[e.ino] {
					links++
				}
			}
		}
		fits = uint32(links) == o.links
	}
	if !fits {
		return nil
	}
	return []any{next}
}

// model is the tree's for porcupine.
func (t tree) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{names(nil)} },
		Step:  func(s, in, _ any) []any { return t.step(s.(names), in.(*nameOp)) },
		Equal: func(a, b any) bool { return slices.Equal(a.(names), b.(names)) },
	}
	return m.ToModel()
}

// checkNames tells whether all answers about names fit one order of the calls.
func checkNames(all []*nameOp, dirs map[uint64]bool) error {
	ops := make([]porcupine.Operation, 0, len(all))
	for i, o := range all {
		ops = append(ops, porcupine.Operation{ClientId: i, Input: o, Call: o.call, Return: o.ret})
	}
	switch porcupine.CheckOperationsTimeout(tree{dirs}.model(), ops, patience) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return errTooLong
	}
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintln(&b, o)
	}
	return fmt.Errorf("the answers about names fit no order of the calls:\n%s", b.String())
}
