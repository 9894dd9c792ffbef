package share

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// vast is a volume that is larger than any memory, and its catalog. It zeroes a GiB a second, as a disk that cannot make holes.
type vast struct {
	mu   sync.Mutex
	tree *filetree.Tree
}

const vastSize = 1 << 40

func (v *vast) Geometry() block.Geometry {
	return block.Geometry{Size: vastSize, Logical: 512, Physical: 4096, MaxLen: 4 << 20}
}

func (v *vast) Submit(r *block.Request) {
	if r.Op != block.Zero {
		r.Done(r)
		return
	}
	time.AfterFunc(time.Duration(r.Len>>10)*time.Second>>20, func() { r.Done(r) })
}

func (v *vast) Tree() *filetree.Tree {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tree
}

func (v *vast) Propose(_ context.Context, b filetree.Batch) (results []filetree.Result, _ error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tree, results = v.tree.Apply(b, filetree.MaxMeta)
	return results, nil
}

// TestVastFileGone: what a large file had becomes free bit by bit. A share that was full has space again at once, not when all of it
// is zeroed, and does not wait for all when it is closed.
func TestVastFileGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vast{tree: filetree.New(vastSize, 1, time.Now().UnixNano())}
		// All of it was somebody's: a former leader's, which is as good as a file's that was removed.
		if _, err := v.Propose(t.Context(), filetree.Batch{Ops: []filetree.Op{{Kind: filetree.Ahead, Spans: []filetree.Span{{Len: vastSize}}}}}); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), Config{ID: ids.Volume{5}, Device: v, Catalog: v, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Create(t.Context(), newClient(1).next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := s.Write(t.Context(), m.Node.Ref, 0, make([]byte, 4096), nfs3.FileSync); err != nil || time.Since(begun) > 2*time.Second {
			t.Errorf("a write into a share that is being zeroed: %v after %v", err, time.Since(begun))
		}
		begun = time.Now()
		if s.Close(nil); time.Since(begun) > 2*time.Second {
			t.Errorf("closed after %v", time.Since(begun))
		}
	})
}

// TestAdoptedReplica: the bytes of a volume are those of an older replica that was adopted, in which what is free by the tree still has others' bytes.
// No file shows them.
func TestAdoptedReplica(t *testing.T) {
	w := newWorld(t, 4<<20, 1)
	for i := range w.disk {
		w.disk[i] = 0xaa
	}
	w.tree = w.tree.Doubted(0)
	s, err := w.lead()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	m, err := s.Create(t.Context(), newClient(1).next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, m.Node.Ref, 1<<20, []byte("end"))
	write(t, s, m.Node.Ref, 4096, []byte("x"))
	if got := read(t, s, m.Node.Ref, 0, 1<<20); !bytes.Equal(got, append(append(make([]byte, 4096), 'x'), make([]byte, 1<<20-4097)...)) {
		t.Error("a new file shows bytes that were never written to it")
	}
}

// TestManyQuietFiles: more files were written than are remembered without need. What each had been given behind its end comes back all the same
// when they are quiet, and a file that is in use is not forgotten for others.
func TestManyQuietFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 128<<20, 1)
		s, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(nil)
		c := newClient(1)
		const files = maxIdle + 500
		for i := range files {
			m, err := s.Create(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: fmt.Sprint(i)}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, m.Node.Ref, 0, make([]byte, 8192))
			write(t, s, m.Node.Ref, 8192, make([]byte, 4096)) // gets 8 KiB
		}
		time.Sleep(time.Minute)
		used := int64(0)
		for _, u := range w.now().Usages() {
			used += u.Used
		}
		if used != files*12<<10 {
			t.Errorf("%d files that are quiet have %d bytes too many", files, used-files*12<<10)
		}
		s.files.mu.Lock()
		defer s.files.mu.Unlock()
		if n := len(s.files.files); n > maxIdle+1 || s.files.idle != n {
			t.Errorf("%d quiet files are remembered, %d by count", n, s.files.idle)
		}
	})
}
