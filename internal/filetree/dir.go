package filetree

import "hash/fnv"

// An entry's cookie comes from its name: bits 62 to 8 are a hash of it, bits 7 to 0 tell names with the same hash apart. So
// a name's place in a listing does not depend on what else is in the directory, and an entry that stays is met once by
// whoever walks along the cookies. Cookies are above lowCookie, which are left to "." and "..".
const (
	slots     = 256
	lowCookie = 1 << 8
)

func cookieOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	x := h.Sum64()
	x ^= x >> 32 // the upper bits of FNV-1a hardly depend on the last byte
	x *= 0x9e3779b97f4a7c15
	return max(x>>1&^(slots-1), lowCookie)
}

// find returns an entry by its name; without one, a cookie for it, 0 if all are taken.
func (t *Tree) find(dir uint64, name string) (e Entry, ok bool) {
	base := cookieOf(name)
	want := base
	for k, d := range t.entries.from(entryKey{dir, base}) {
		if k.dir != dir || k.cookie >= base+slots {
			break
		}
		if d.name == name {
			return Entry{k.cookie, d.name, d.ino}, true
		}
		if k.cookie == want {
			want++
		}
	}
	if want == base+slots {
		want = 0
	}
	return Entry{Cookie: want, Name: name}, false
}

// Lookup finds a name in a directory. "." and ".." are no names here.
func (t *Tree) Lookup(dir uint64, name string) (Entry, bool) { return t.find(dir, name) }

// Entries returns up to n entries of a directory behind a cookie, by cookie.
func (t *Tree) Entries(dir, cookie uint64, n int) (all []Entry) {
	for k, d := range t.entries.from(entryKey{dir, cookie + 1}) {
		if k.dir != dir || len(all) >= n {
			break
		}
		all = append(all, Entry{k.cookie, d.name, d.ino})
	}
	return all
}
