package share

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWritesInsideAFileCommitNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 64<<20)
		write(t, s, f, 0, bytes.Repeat([]byte{1}, 1<<20))
		write(t, s, f, 0, []byte("the first marks it"))
		synctest.Wait() // space ahead is there
		before := w.now()
		var last int64
		for i := range 200 {
			res := write(t, s, f, int64(i*4096), bytes.Repeat([]byte{byte(i)}, 4096))
			if at := ns(res.Wcc.After.Mtime); at <= last {
				t.Fatal("the mtime did not change")
			} else {
				last = at
			}
		}
		if w.now() != before {
			t.Fatal("a write inside the file was committed")
		}
		// The leader dies; what a client saw never goes back, however far the next one's clock is behind.
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
		s.Close(nil)
		w.clock = func() time.Time { return time.Unix(5, 0) }
		n, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close(nil)
		a, err := n.Getattr(t.Context(), f)
		if err != nil || ns(a.Mtime) <= last || ns(a.Ctime) <= last {
			t.Fatal(a, last, err)
		}
		if got := read(t, n, f, 199*4096, 4096); !bytes.Equal(got, bytes.Repeat([]byte{199}, 4096)) {
			t.Fatal("another file's bytes")
		}
	})
}

// A clock that jumps ahead does not make a leader show times that a later one would go behind.
func TestShownTimesAreCommittedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4<<20, 1)
		var jump atomic.Int64
		w.clock = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		s, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close(nil) }()
		m, err := s.Create(t.Context(), newClient(1).next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Attr: mode()})
		if err != nil {
			t.Fatal(err)
		}
		write(t, s, m.Node.Ref, 0, make([]byte, 4096))
		write(t, s, m.Node.Ref, 0, make([]byte, 4096))
		jump.Store(int64(time.Hour))
		shown := ns(write(t, s, m.Node.Ref, 0, make([]byte, 4096)).Wcc.After.Mtime)
		w.mu.Lock()
		w.dead = true
		jump.Store(0)
		w.mu.Unlock()
		s.Close(nil)
		if s, err = w.lead(); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Peek(m.Node.Ref); err != nil || ns(n.Attr.Mtime) <= shown {
			t.Fatal(n, shown, err)
		}
	})
}

// What a write that failed may have left in space ahead is zeroed before that is used again.
func TestSpaceOfAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 4<<20)
		write(t, s, f, 0, make([]byte, 4096)) // there is space ahead
		w.mu.Lock()
		w.failIn = 1
		w.mu.Unlock()
		if _, err := s.Write(t.Context(), f, 1<<20, bytes.Repeat([]byte{1}, 100<<10), nfs3.FileSync); !errors.Is(err, nfs3.ErrIO) {
			t.Fatal(err)
		}
		synctest.Wait()
		w.check()
		_, ahead, _ := w.now().Space()
		s.ahead.mu.Lock()
		defer s.ahead.mu.Unlock()
		if s.ahead.sum != ahead {
			t.Fatalf("%d bytes are ahead, of which %d can be used", ahead, s.ahead.sum)
		}
		for _, sp := range s.ahead.spans {
			if !bytes.Equal(w.disk[sp.Vol:sp.Vol+sp.Len], make([]byte, sp.Len)) {
				t.Fatal("space ahead does not read as zeros")
			}
		}
	})
}

func TestQuietFilesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 64<<20)
		write(t, s, f, 0, make([]byte, 300<<10))
		write(t, s, f, 300<<10, make([]byte, 4096)) // allocates ahead of the end
		res := write(t, s, f, 0, make([]byte, 4096))
		shown := ns(res.Wcc.After.Ctime)
		if w.now().Marks() != 1 || w.now().MappedEnd(f.Ino) <= 304<<10 {
			t.Fatal(w.now().Marks(), w.now().MappedEnd(f.Ino))
		}
		time.Sleep(quiet + 3*time.Second)
		synctest.Wait()
		n, _ := w.now().Inode(f.Ino)
		if w.now().Marks() != 0 || n.Ctime != shown || n.Used != 304<<10 {
			t.Fatal(w.now().Marks(), n, shown)
		}
		w.check()
		// A guard that the client saw holds though the tree had another time.
		res = write(t, s, f, 0, make([]byte, 4096))
		if _, err := s.Setattr(t.Context(), c.next(), f, mode(), &res.Wcc.After.Ctime); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Setattr(t.Context(), c.next(), f, mode(), &res.Wcc.After.Ctime); !errors.Is(err, nfs3.ErrNotSync) {
			t.Fatal(err)
		}
	})
}

// What is behind the end of a file is never seen, whoever left it there.
func TestBehindTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 64<<20)
		ones := bytes.Repeat([]byte{1}, 10000)
		write(t, s, f, 0, ones)
		setSize(t, s, c, f, 100)
		setSize(t, s, c, f, 9000)
		if got := read(t, s, f, 0, 20000); !bytes.Equal(got, append(bytes.Clone(ones[:100]), make([]byte, 8900)...)) {
			t.Fatal("bytes that were cut off are back")
		}
		setSize(t, s, c, f, 100)
		write(t, s, f, 5000, ones[:10])
		if got := read(t, s, f, 100, 4900); !bytes.Equal(got, make([]byte, 4900)) {
			t.Fatal("bytes that were cut off are back")
		}
		// A write that failed behind the end, with the extent there already.
		write(t, s, f, 1<<20, ones)
		w.mu.Lock()
		w.failIn = 1
		w.mu.Unlock()
		end := int64(1<<20 + 10000)
		if _, err := s.Write(t.Context(), f, uint64(end), ones, nfs3.FileSync); !errors.Is(err, nfs3.ErrIO) {
			t.Fatal(err)
		}
		setSize(t, s, c, f, end+20000)
		if got := read(t, s, f, end, 20000); !bytes.Equal(got, make([]byte, 20000)) {
			t.Fatal("a write that failed is seen")
		}
	})
}

func TestTheVolumeBecomesLarger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 4<<20)
		w.mu.Lock()
		w.disk = append(w.disk, make([]byte, 4<<20)...)
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		st, err := s.Statfs(t.Context())
		if err != nil || st.Total != 8<<20 {
			t.Fatal(st, err)
		}
		write(t, s, f, 0, make([]byte, 1<<20))
		w.check()
	})
}

func TestFullShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 4<<20)
		chunk := bytes.Repeat([]byte{5}, 256<<10)
		n := int64(0)
		for ; ; n += int64(len(chunk)) {
			_, err := s.Write(t.Context(), f, uint64(n), chunk, nfs3.FileSync)
			if errors.Is(err, nfs3.ErrNoSpace) {
				break
			}
			if err != nil || n > 4<<20 {
				t.Fatal(n, err)
			}
		}
		if n < 4<<20-int64(len(chunk)) {
			t.Fatalf("full after %d bytes", n)
		}
		if got := read(t, s, f, n-4096, 4096); !bytes.Equal(got, chunk[:4096]) {
			t.Fatal("a full share lost data")
		}
		write(t, s, f, 0, chunk) // in place it goes on
		st, err := s.Statfs(t.Context())
		if err != nil || st.Free > uint64(len(chunk)) {
			t.Fatal(st, err)
		}
		m, err := s.Create(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "g"}, nfs.Create{Attr: mode()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "f"}); err != nil {
			t.Fatal(err)
		}
		// What was freed is there again when it is zeroed; a write waits for that.
		write(t, s, m.Node.Ref, 3<<20, []byte("x"))
		if got := read(t, s, m.Node.Ref, 2<<20, 2<<20); !bytes.Equal(got[:1<<20], make([]byte, 1<<20)) {
			t.Fatal("another file's bytes")
		}
		synctest.Wait()
		w.check()
		if _, err := s.Write(t.Context(), f, 0, chunk, nfs3.FileSync); !errors.Is(err, nfs3.ErrStale) {
			t.Fatal(err)
		}
	})
}

// Space is not zeroed, nor used again, as long as a read that found it is under way.
func TestReadsHoldWhatTheyFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 4<<20)
		ones := bytes.Repeat([]byte{1}, 4096)
		write(t, s, f, 0, ones)
		pin := s.pins.enter()
		if _, err := s.Remove(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "f"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, _, freed := w.now().Space(); freed == 0 || w.zeroed > 0 {
			t.Fatal("space was zeroed under a read")
		}
		s.pins.leave(pin)
		synctest.Wait()
		w.check()
	})
}

func TestHolesTakeNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 64<<20)
		setSize(t, s, c, f, 1<<40)
		if n, _ := w.now().Inode(f.Ino); n.Used != 0 || n.Size != 1<<40 {
			t.Fatal(n)
		}
		write(t, s, f, 1<<39, []byte("x"))
		if n, _ := w.now().Inode(f.Ino); n.Used > smallPiece {
			t.Fatal(n)
		}
		if got := read(t, s, f, 1<<39-2, 4); !bytes.Equal(got, []byte{0, 0, 'x', 0}) {
			t.Fatal(got)
		}
		if _, err := s.Write(t.Context(), f, 1<<44-1, []byte("xy"), nfs3.FileSync); !errors.Is(err, nfs3.ErrFBig) {
			t.Fatal(err)
		}
		write(t, s, f, 1<<44-1, []byte("x"))
	})
}

func TestRetriesGetTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 4<<20)
		at := nfs.Name{Dir: s.Root(), Name: "d"}
		call := c.next()
		first, err := s.Mkdir(t.Context(), call, at, mode())
		if err != nil {
			t.Fatal(err)
		}
		cut := c.next()
		if _, err := s.Setattr(t.Context(), cut, f, nfs3.SetAttr{Size: ptr(uint64(0))}, nil); err != nil {
			t.Fatal(err)
		}
		write(t, s, f, 0, []byte("written after that"))
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
		s.Close(nil)
		n, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close(nil)
		again, err := n.Mkdir(t.Context(), call, at, mode())
		if err != nil || again.Node.Ref != first.Node.Ref {
			t.Fatal(again, err)
		}
		if _, err := n.Mkdir(t.Context(), c.next(), at, mode()); !errors.Is(err, nfs3.ErrExist) {
			t.Fatal(err)
		}
		if _, err := n.Setattr(t.Context(), cut, f, nfs3.SetAttr{Size: ptr(uint64(0))}, nil); err != nil {
			t.Fatal(err)
		}
		if got := read(t, n, f, 0, 100); string(got) != "written after that" {
			t.Fatalf("a retry cut the file again: %q", got)
		}
	})
}

// Many writers of one file, whose pieces and blocks are shared: every byte is its writer's.
func TestWritersOfOneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 64<<20)
		w.delay.Store(int64(time.Millisecond))
		const writers, record, records = 8, 1500, 60
		done := make(chan error, writers)
		for i := range writers {
			go func() {
				for k := range records {
					off := uint64((k*writers + i) * record)
					if _, err := s.Write(t.Context(), f, off, bytes.Repeat([]byte{byte(i + 1)}, record), nfs3.Unstable); err != nil {
						done <- fmt.Errorf("writer %d: %w", i, err)
						return
					}
				}
				done <- nil
			}()
		}
		for range writers {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		got := read(t, s, f, 0, writers*record*records)
		if len(got) != writers*record*records {
			t.Fatal(len(got))
		}
		for i, b := range got {
			if want := byte(i/record%writers + 1); b != want {
				t.Fatalf("byte %d is %d, not %d", i, b, want)
			}
		}
		if err := w.now().Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLongFilesAreCutInSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, c := fixture(t, 64<<20)
		// One block in two, so that no two extents touch.
		var spans []filetree.Span
		if _, err := s.change(t.Context(), filetree.Op{Kind: filetree.Ahead, Spans: []filetree.Span{{Vol: 32 << 20, Len: 32 << 20}}}); err != nil {
			t.Fatal(err)
		}
		for i := range int64(3500) {
			spans = append(spans, filetree.Span{File: 2 * i * 4096, Vol: 32<<20 + i*4096, Len: 4096})
		}
		if _, err := s.change(t.Context(), filetree.Op{Kind: filetree.Write, Ino: f.Ino, Spans: spans, Size: 7000 * 4096}); err != nil {
			t.Fatal(err)
		}
		setSize(t, s, c, f, 3*4096)
		if n, _ := w.now().Inode(f.Ino); n.Size != 3*4096 || n.Used != 2*4096 {
			t.Fatal(n)
		}
	})
}
