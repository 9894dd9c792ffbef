package catalog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
)

// TestBinaryForm holds the form against its drawing in docs/FORMATS.md, and that it says what JSON says.
func TestBinaryForm(t *testing.T) {
	c := Command{Time: time.Unix(1, 2), Body: ChangeTree{Epoch: 3, Volume: ids.Volume{15: 4}, Version: 5, Ops: []byte{6, 7}}}
	b, err := Empty().Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	const drawn = "01" + "000000003b9aca02" + "0000000000000003" + "00000000000000000000000000000004" + "0000000000000005" + "0607"
	if hex.EncodeToString(b) != drawn {
		t.Fatalf("%x", b)
	}
	long, err := Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	short, since, err := decode(b)
	if err != nil || since != 2 {
		t.Fatal(since, err)
	}
	same, since, err := decode(long)
	if err != nil || since != 1 {
		t.Fatal(since, err)
	}
	if d := cmp.Diff(same, short); d != "" {
		t.Fatal(d)
	}
	for n := 1; n < binaryHead; n++ {
		if _, _, err := decode(b[:n]); !errors.Is(err, ErrUnreadable) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// TestBinaryFormOfOldNodes: a node that knows no such form gets none, and if it comes while one is on its way nobody applies that.
func TestBinaryFormOfOldNodes(t *testing.T) {
	m := newMachine(t)
	n, _ := m.three()
	v := m.share(n)
	c := Command{Time: time.Unix(1, 2), Body: ChangeTree{1, v.ID, 1, mkdir("a")}}
	short, err := m.s.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	old := n[2]
	old.Version = 1
	m.do(PutNode{Node: old})
	if _, _, err := Apply(m.s, m.s.Index+1, short); !errors.Is(err, ErrOldNode) {
		t.Fatal(err)
	}
	long, err := m.s.Encode(c)
	if err != nil || bytes.Equal(long, short) || long[0] != '{' {
		t.Fatalf("%q, %v", long, err)
	}
	if r := m.do(c.Body); len(r.Tree) != 1 {
		t.Fatal(r)
	}
	// What it does not say has the other form: an id of a request, a time that is none.
	m.do(PutNode{Node: n[2]})
	for _, c := range []Command{{Request: "x", Time: c.Time, Body: c.Body}, {Body: c.Body}} {
		b, err := m.s.Encode(c)
		if err != nil || b[0] != '{' {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

// BenchmarkChangeTree makes six files with one command, from the proposer to the new state, in either form.
func BenchmarkChangeTree(b *testing.B) {
	for name, version := range map[string]int{"json": 1, "binary": 2} {
		b.Run(name, func(b *testing.B) {
			s := Empty()
			node, v := Node{ID: ids.NewNode(), Version: version}, Volume{ID: ids.NewVolume(), Size: 1 << 30, Share: true, Version: 1, LastServed: 1}
			s.Epoch = 1
			s.setNode(node)
			s.setVolume(v)
			s.newTree(Command{Time: time.Unix(1, 0)}, v)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				var batch filetree.Batch
				for range 6 {
					n++
					batch.Ops = append(batch.Ops, filetree.Op{Kind: filetree.Create, Type: filetree.Regular, Dir: filetree.Root, Name: fmt.Sprint("file", n),
						Now: int64(n), Reply: filetree.Key{byte(n), byte(n >> 8), byte(n >> 16)}})
				}
				e, err := s.Encode(Command{Time: time.Unix(2, 0), Body: ChangeTree{1, v.ID, 1, batch.Encode()}})
				if err != nil {
					b.Fatal(err)
				}
				next, r, err := Apply(s, s.Index+1, e)
				if err != nil || len(r.Tree) != 6 || r.Tree[5].Status != filetree.OK {
					b.Fatal(r, err)
				}
				s = next
			}
		})
	}
}
