package filetree

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// million makes a tree of n files of one block each, 1000 in a directory, in batches of 32.
func million(n int) *Tree {
	t := New(int64(n+1000)*Block, 7, 1000)
	var dir uint64
	var ops []Op
	apply := func() []Result {
		next, r := t.Apply(Batch{Ops: ops}, 1<<40)
		t, ops = next, ops[:0]
		return r
	}
	for i := range n {
		if i%1000 == 0 {
			apply()
			ops = append(ops, Op{Kind: Create, Dir: Root, Name: fmt.Sprint("dir", i), Type: Directory}, Op{Kind: Ahead, Spans: []Span{{0, int64(i) * Block, 1000 * Block}}})
			dir = apply()[0].Ino
		}
		ino := t.next + uint64(len(ops)/2)
		ops = append(ops, Op{Kind: Create, Dir: dir, Name: fmt.Sprintf("file-%08d.dat", i), Type: Regular, Reply: Key{byte(i), byte(i >> 8), byte(i >> 16), 1}},
			Op{Kind: Write, Ino: ino, Size: 4000, Spans: []Span{{0, int64(i) * Block, Block}}})
		if len(ops) == 32 {
			apply()
		}
	}
	apply()
	return t
}

// BenchmarkMillion tells what a tree of a million files takes: memory, a snapshot, and the first op of a new leader.
func BenchmarkMillion(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		t := million(1_000_000)
		b.ReportMetric(float64(time.Since(begin).Nanoseconds())/2e6, "ns/op-made")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "B/file")
		var s bytes.Buffer
		begin = time.Now()
		if err := t.Save(&s); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s-save")
		b.ReportMetric(float64(s.Len())/1e6, "B/file-saved")
		begin = time.Now()
		if _, err := Load(s.Bytes()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s-load")
		begin = time.Now()
		t.Apply(Batch{Ops: []Op{{Kind: Open}}}, 0)
		b.ReportMetric(time.Since(begin).Seconds()*1e6, "us-open")
	}
}
