package share

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// A call of a history: it is done on a share, and on a model when it was answered.
type call struct {
	kind     int
	name, to string
	off      int64
	data     []byte
	caller   nfs.Caller
}

const (
	create = iota
	writeTo
	resize
	remove
	move
	kinds
)

func (c call) String() string {
	return fmt.Sprintf("%s %s %s %d+%d", []string{"create", "write", "resize", "remove", "move"}[c.kind], c.name, c.to, c.off, len(c.data))
}

// do makes the call. Only the name is known of a file that is gone: then the answer is nfs3.ErrNoEnt.
func (c call) do(t *testing.T, s *Share) error {
	root := s.Root()
	at := nfs.Name{Dir: root, Name: c.name}
	ref := func() (nfs.Ref, error) {
		n, _, err := s.Lookup(t.Context(), root, c.name)
		return n.Ref, err
	}
	switch c.kind {
	case create:
		_, err := s.Create(t.Context(), c.caller, at, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
		return err
	case writeTo:
		r, err := ref()
		if err != nil {
			return err
		}
		_, err = s.Write(t.Context(), r, uint64(c.off), c.data, nfs3.FileSync)
		return err
	case resize:
		r, err := ref()
		if err != nil {
			return err
		}
		_, err = s.Setattr(t.Context(), c.caller, r, nfs3.SetAttr{Size: ptr(uint64(c.off))}, nil)
		return err
	case remove:
		_, err := s.Remove(t.Context(), c.caller, at)
		return err
	}
	_, err := s.Rename(t.Context(), c.caller, at, nfs.Name{Dir: root, Name: c.to})
	return err
}

// files is the model: what is in each file.
type content map[string][]byte

func (m content) do(c call) error {
	old, ok := m[c.name]
	grown := func(n int64) []byte {
		return append(bytes.Clone(old), make([]byte, max(0, n-int64(len(old))))...)
	}
	switch {
	case c.kind == create && ok:
		return nfs3.ErrExist
	case c.kind == create:
		m[c.name] = []byte{}
		return nil
	case !ok:
		return nfs3.ErrNoEnt
	}
	switch c.kind {
	case writeTo:
		p := grown(c.off + int64(len(c.data)))
		copy(p[c.off:], c.data)
		m[c.name] = p
	case resize:
		m[c.name] = grown(c.off)[:c.off]
	case remove:
		delete(m, c.name)
	case move:
		if c.name != c.to {
			delete(m, c.name)
			m[c.to] = old
		}
	}
	return nil
}

func history(r *rand.Rand, n int) (all []call) {
	cl := newClient(1)
	name := func() string { return string(rune('a' + r.IntN(4))) }
	for i := range n {
		c := call{kind: []int{create, create, writeTo, writeTo, writeTo, writeTo, resize, remove, move}[r.IntN(9)], name: name(), to: name(), caller: cl.next(),
			off: r.Int64N(60000)}
		if r.IntN(2) == 0 {
			c.off &^= 4095
		}
		if c.kind == writeTo {
			c.data = bytes.Repeat([]byte{byte(i + 1)}, 1+r.IntN(20000))
			if r.IntN(2) == 0 {
				c.data = c.data[:max(1, len(c.data)&^4095)]
			}
		}
		all = append(all, c)
	}
	return all
}

// same tells whether the share has what the model has. torn is the write that was under way when the leader died: of its bytes
// some may be there. Then the model takes what is.
func (w *world) same(s *Share, m content, torn *call) {
	w.t.Helper()
	t := w.t
	dir, err := s.Readdir(t.Context(), s.Root(), 0, nfs3.Verifier{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]nfs.Node{}
	for _, e := range dir.Entries {
		names[e.Name] = e.Node
	}
	if a, b := slices.Sorted(maps.Keys(names)), slices.Sorted(maps.Keys(m)); !slices.Equal(a, b) {
		t.Fatalf("files %v, not %v", a, b)
	}
	for name, n := range names {
		got, want := read(t, s, n.Ref, 0, 200000), m[name]
		if torn != nil && torn.name == name && torn.kind == writeTo {
			want = bytes.Clone(want)
			for i := range torn.data {
				if at := int(torn.off) + i; at < len(want) && at < len(got) && got[at] == torn.data[i] {
					want[at] = got[at]
				}
			}
			m[name] = want
		}
		if !bytes.Equal(got, want) {
			at := 0
			for at < len(got) && at < len(want) && got[at] == want[at] {
				at++
			}
			t.Fatalf("%s: %d bytes, not %d, and they differ at %d", name, len(got), len(want), at)
		}
		if old, ok := w.seen[n.Ref.Ino]; ok && (ns(n.Attr.Ctime) < ns(old.Ctime) || ns(n.Attr.Mtime) < ns(old.Mtime)) {
			t.Fatalf("%s: times went back: %+v, then %+v", name, old, n.Attr)
		}
		w.seen[n.Ref.Ino] = n.Attr
	}
}

// TestCrashAtEveryStep: the leader dies at a step of its own, and the next one has all that was answered, of what was not
// answered all or nothing (of a write inside a file, a part), each effect once, and every byte of the volume accounted for.
func TestCrashAtEveryStep(t *testing.T) {
	crashes, retried := 0, 0
	for seed := range uint64(12) {
		calls := history(rand.New(rand.NewPCG(seed, 9)), 60)
		for die := 1; ; die += 1 + int(seed%5) {
			over := false
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2<<20, seed*1000+uint64(die))
				w.dieAt = die
				skew := time.Duration(0)
				w.clock = func() time.Time { return time.Now().Add(skew) }
				m := content{}
				s, err := w.lead()
				var torn *call
				for i := 0; i < len(calls); i++ {
					if err == nil {
						err = calls[i].do(t, s)
						if !ended(err) {
							before := maps.Clone(m)
							want := m.do(calls[i])
							if torn != nil && (calls[i].kind == create || calls[i].kind >= remove) {
								retried++
							}
							if !errors.Is(err, want) {
								t.Fatalf("seed %d, die %d: %v: %v, not %v\n%v", seed, die, calls[i], err, want, slices.Collect(maps.Keys(before)))
							}
							torn, err = nil, nil
							continue
						}
					}
					// The leader is dead. The next one's clock is behind; the client asks again.
					crashes++
					if s != nil {
						s.Close(nil)
					}
					skew -= time.Minute
					if s, err = w.lead(); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					w.check()
					torn = &calls[i]
					if torn.kind == writeTo || torn.kind == resize {
						// All or nothing of what sizes show; a part of what is inside.
						after := maps.Clone(m)
						after.do(*torn)
						if n, _, err := s.Lookup(t.Context(), s.Root(), torn.name); err == nil && int(n.Attr.Filesize) == len(after[torn.name]) && len(after[torn.name]) != len(m[torn.name]) {
							m = after
						}
						w.same(s, m, torn)
					}
					i--
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() { s.Close(nil) }()
				var dead bool
				if over, dead = w.disarm(); dead { // while nobody asked
					s.Close(nil)
					if s, err = w.lead(); err != nil {
						t.Fatal(err)
					}
				}
				w.same(s, m, nil)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				w.check()
				w.same(s, m, nil)
			})
			if over || t.Failed() {
				break
			}
		}
		if t.Failed() {
			return
		}
	}
	if crashes < 500 || retried < 100 {
		t.Errorf("%d crashes, %d retries", crashes, retried)
	}
	t.Log(crashes, "crashes,", retried, "retries of what changes names")
}

// TestCrashUnderManyWriters: eight writers of one file, each of its own records; what was answered is there.
func TestCrashUnderManyWriters(t *testing.T) {
	const writers, record, records = 8, 1500, 12
	for die := 5; die < 400; die += 11 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2<<20, uint64(die))
			w.delay.Store(int64(time.Millisecond))
			w.dieAt = die
			s, err := w.lead()
			if err != nil && !ended(err) {
				t.Fatal(err)
			}
			if err != nil {
				if s, err = w.lead(); err != nil {
					t.Fatal(err)
				}
			}
			m, err := s.Create(t.Context(), newClient(1).next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Attr: mode()})
			if err != nil {
				s.Close(nil)
				return // it died too early
			}
			answered := make(chan int, writers*records)
			done := make(chan struct{}, writers)
			for i := range writers {
				go func() {
					defer func() { done <- struct{}{} }()
					for k := range records {
						n := k*writers + i
						if _, err := s.Write(t.Context(), m.Node.Ref, uint64(n*record), bytes.Repeat([]byte{byte(i + 1)}, record), nfs3.FileSync); err != nil {
							return
						}
						answered <- n
					}
				}()
			}
			for range writers {
				<-done
			}
			close(answered)
			s.Close(nil)
			if s, err = w.lead(); err != nil {
				t.Fatal(err)
			}
			defer s.Close(nil)
			got := read(t, s, m.Node.Ref, 0, writers*record*records)
			is := map[int]bool{}
			for n := range answered {
				is[n] = true
			}
			for n := range writers * records {
				for at := n * record; at < (n+1)*record; at++ {
					switch {
					case is[n] && (at >= len(got) || got[at] != byte(n%writers+1)):
						t.Fatalf("die %d: record %d was answered, byte %d is lost", die, n, at)
					case at < len(got) && got[at] != 0 && got[at] != byte(n%writers+1):
						t.Fatalf("die %d: byte %d of record %d is another's", die, at, n)
					}
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			w.check()
		})
	}
}
