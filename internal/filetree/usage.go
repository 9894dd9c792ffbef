package filetree

// Usage is what the entries of the root take, with all below them: the bytes of their extents and the number of their inodes. A
// file with several names counts where it is found first. It looks at everything.
type Usage struct {
	Name  string
	Used  int64
	Files int64
}

// Usages returns them by cookie.
func (t *Tree) Usages() (all []Usage) {
	seen := map[uint64]bool{}
	for k, d := range t.entries.from(entryKey{Root, 0}) {
		if k.dir != Root {
			break
		}
		u := Usage{Name: d.name}
		for todo := []uint64{d.ino}; len(todo) > 0; {
			ino := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			n, _ := t.Inode(ino)
			if n.Type != Directory && n.Nlink > 1 {
				if seen[ino] {
					continue
				}
				seen[ino] = true
			}
			u.Used += n.Used
			u.Files++
			if n.Type == Directory {
				for k, e := range t.entries.from(entryKey{ino, 0}) {
					if k.dir != ino {
						break
					}
					todo = append(todo, e.ino)
				}
			}
		}
		all = append(all, u)
	}
	return all
}
