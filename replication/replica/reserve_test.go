package replica

import (
	"bytes"
	"os"
	"slices"
	"syscall"
	"testing"

	"pmsapp/replication/peer"
)

// TestReserve: to reserve space changes no byte, marks nothing and leaves holes what they are; and it takes the space.
func TestReserve(t *testing.T) {
	p := newProved(t)
	const off, n = 8 << 20, 4 << 20
	was := random(64 << 10)
	p.write(off+1<<20, was)
	p.write(off+2<<20, bytes.Repeat([]byte{7}, 4096))
	p.clear()
	ask := peer.Command{Kind: peer.Extents, Volume: p.spec.Volume, Off: off, Len: n}
	before, space := must(t, p.s, ask).Extents, p.space()
	must(t, p.s, peer.Command{Kind: peer.Reserve, Volume: p.spec.Volume, Off: off, Len: n})
	if got := p.space() - space; got < n-(1<<20) {
		t.Errorf("%d bytes were reserved of %d", got, n)
	}
	if got := must(t, p.s, ask).Extents; !slices.Equal(got, before) {
		t.Errorf("extents %v, and %v before", got, before)
	}
	if a := must(t, p.s, peer.Command{Kind: peer.ReadMap, Volume: p.spec.Volume}).Active; len(a) > 0 {
		t.Errorf("regions were marked: %v", a)
	}
	want := make([]byte, n)
	copy(want[1<<20:], was)
	copy(want[2<<20:], bytes.Repeat([]byte{7}, 4096))
	for at := 0; at < n; at += 1 << 20 {
		p.good(int64(off+at), want[at:at+1<<20])
	}
	if a := do(t, p.s, peer.Command{Kind: peer.Reserve, Volume: p.spec.Volume, Off: p.spec.Size, Len: 512}); a.Err == nil {
		t.Error("space was reserved beyond the end")
	}
}

// space is what the data's file takes of the disk.
func (p *proved) space() int64 {
	info, err := os.Stat(p.path(fileData))
	if err != nil {
		p.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
