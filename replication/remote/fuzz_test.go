package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// FuzzCDB looks for CDBs that are read otherwise than they are written, and for numbers that overflow later.
func FuzzCDB(f *testing.F) {
	for _, q := range []request{{act: actFence, seq: 9}, {act: actWrite, volume: ids.NewVolume(), off: 1 << 40, length: 4096, seq: 7, durable: 3}, {act: actReset}} {
		var b [cdbLen]byte
		q.encode(&b)
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeCDB(b)
		if err != nil {
			if !errors.Is(err, errUnknown) && !errors.Is(err, peer.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if q.off < 0 || q.length < 0 || q.off+q.length < 0 {
			t.Fatalf("%+v", q)
		}
		var again [cdbLen]byte
		q.encode(&again)
		if r, err := decodeCDB(again[:]); err != nil || r != q {
			t.Fatal(r, q, err)
		}
	})
}

func FuzzFenced(f *testing.F) {
	big := bigFenced(2)
	f.Add(appendFenced(nil, &big))
	f.Add(appendFenced(nil, &peer.Fenced{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFenced(b)
		if err != nil {
			return
		}
		again, err := decodeFenced(appendFenced(nil, &got))
		if err != nil || !cmp.Equal(again, got) {
			t.Fatal(err, cmp.Diff(got, again))
		}
	})
}

func FuzzPayloads(f *testing.F) {
	h := answerHeader{act: actReadMap, length: 24}
	f.Add(h.append(nil))
	f.Add(appendRegions(h.append(nil), []peer.RegionSeq{{Region: 1, Seq: 2}, {Region: 3, Seq: 4}}))
	f.Add(appendSpec(nil, &peer.Spec{Volume: ids.NewVolume(), Size: 5, Region: 6}))
	others := []peer.Other{{ID: peer.ReplicaID{Birth: ids.New()}}, {ID: peer.ReplicaID{Birth: ids.New()}, Absent: true, All: true, Epoch: 1, Seq: 2}}
	f.Add(appendOthers(nil, others))
	f.Add(appendExtents(appendOthers(nil, others[1:]), []peer.Extent{{Off: 0, Len: 512}}))
	f.Add(appendMap(nil, &peer.Answer{Birth: ids.New(), Highest: 3, Known: others, Active: []peer.RegionSeq{{Region: 1, Seq: 2}}}))
	f.Add(appendExtents(nil, []peer.Extent{{Off: 0, Len: 512}, {Off: 1024, Len: 512}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, act := range []action{actFence, actReadMap, actExtents, actSums} {
			if h, body, err := decodeAnswerHeader(b, act); err == nil && (uint64(len(body)) > h.length || h.length > maxBody) {
				t.Fatal(h, len(body))
			}
		}
		if s, err := decodeSpec(b); err == nil {
			if s.Size < 0 || s.Region < 0 {
				t.Fatal(s)
			}
			if again, err := decodeSpec(appendSpec(nil, &s)); err != nil || again != s {
				t.Fatal(again, s, err)
			}
		}
		if g, err := decodeRegions(b); err == nil && !bytes.Equal(appendRegions(nil, g), b) {
			t.Fatal(g)
		}
		if g, err := decodeSums(b, int64(len(b))*1024); err == nil && !bytes.Equal(appendSums(nil, g), b) {
			t.Fatal(g)
		}
		if o, err := decodeOthers(b); err == nil {
			if again, err := decodeOthers(appendOthers(nil, o)); err != nil || !cmp.Equal(again, o) {
				t.Fatal(again, o, err)
			}
		}
		if o, x, err := decodeMissed(b); err == nil {
			if o2, x2, err := decodeMissed(appendExtents(appendOthers(nil, o), x)); err != nil || !cmp.Equal(o2, o) || !cmp.Equal(x2, x) {
				t.Fatal(o2, x2, err)
			}
		}
		var m peer.Answer
		if err := decodeMap(b, &m); err == nil {
			var again peer.Answer
			if err := decodeMap(appendMap(nil, &m), &again); err != nil || !cmp.Equal(again, m) {
				t.Fatal(again, m, err)
			}
		}
		if e, err := decodeExtents(b, 0, 1<<50); err == nil {
			at := int64(0)
			for _, x := range e {
				if x.Off < at || x.Len <= 0 || x.Off+x.Len > 1<<50 {
					t.Fatal(e)
				}
				at = x.Off + x.Len
			}
		}
	})
}

func FuzzSense(f *testing.F) {
	for _, err := range []error{peer.ErrNoSpace, peer.ErrMedium, peer.ErrInvalid, peer.ErrNoReplica, peer.ErrLost, &peer.EpochError{Accepted: 9}} {
		var b [senseLen]byte
		f.Add(bytes.Clone(encodeSense(&b, err, actWrite)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := decodeSense(b)
		var epoch *peer.EpochError
		if errors.As(err, &epoch) && uint64(epoch.Accepted) != binary.BigEndian.Uint64(b[18:]) {
			t.Fatal(epoch.Accepted)
		}
		if err == nil {
			t.Fatal("sense without an error")
		}
	})
}

// FuzzNexus sends commands of any kind to the server end, fenced or not.
func FuzzNexus(f *testing.F) {
	for a := actFence; a <= actDropMissed; a++ {
		q := request{act: a, length: 512, seq: 1}
		var b [cdbLen]byte
		q.encode(&b)
		f.Add(b[:], make([]byte, 512), uint16(600), true)
	}
	f.Add(make([]byte, 260), []byte{}, uint16(0), false)
	f.Fuzz(func(t *testing.T, cdb, data []byte, in uint16, fence bool) {
		n := &fakeNode{data: make([]byte, 1<<10), fenced: bigFenced(3), extents: []peer.Extent{{Off: 0, Len: 512}}}
		server := NewServer(ServerConfig{Cluster: clusterID, Node: anyRange{n}, Log: quiet()})
		x, _, err := server.Login(loginKeys(clusterID, 1))
		if err != nil {
			t.Fatal(err)
		}
		run := func(cdb, data []byte) {
			ch := make(chan struct{})
			task := &Task{CDB: cdb, DataOut: data, InLen: int(in), Done: func(*Task) { close(ch) }}
			if out, room := x.Want(cdb, int64(len(data)), int64(in)); out > int64(len(data)) || room > int64(in) {
				t.Fatal("want", out, room)
			}
			x.Execute(task)
			<-ch
			if len(task.DataIn) > int(in) || (task.Status == 0) != (task.Sense == nil) {
				t.Fatal(len(task.DataIn), task.Status, task.Sense)
			}
		}
		if fence {
			var b [cdbLen]byte
			(&request{act: actFence, seq: 1}).encode(&b)
			run(b[:], nil)
		}
		run(cdb, data)
		x.End()
		server.Wait()
	})
}

// anyRange keeps the fake node from being asked for what is outside its little memory.
type anyRange struct{ *fakeNode }

func (n anyRange) Open(ctx context.Context, e peer.Epoch) (peer.Session, error) {
	s, err := n.fakeNode.Open(ctx, e)
	return within{s}, err
}

type within struct{ peer.Session }

func (w within) Submit(c *peer.Call) {
	if c.Off > 512 {
		c.Err = peer.ErrInvalid
		c.Done(c)
		return
	}
	w.Session.Submit(c)
}
