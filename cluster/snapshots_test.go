package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pmsapp/cluster/catalog"
)

// parts is how many parts of snapshots the file has.
func parts(t *testing.T, s *store) (n int) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSnapshot()).Cursor()
		for k, _ := c.Seek([]byte("part")); bytes.HasPrefix(k, []byte("part")); k, _ = c.Next() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func begin(t *testing.T, s *store, index uint64, state []byte) raft.SnapshotSink {
	t.Helper()
	k, err := snapshots{s}.Create(1, index, 1, raft.Configuration{}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(state) > 0 {
		n := min(len(state), 300_000)
		if _, err := k.Write(state[:n]); err != nil {
			t.Fatal(err)
		}
		state = state[n:]
	}
	return k
}

func current(t *testing.T, s *store, index uint64, want []byte) {
	t.Helper()
	list, err := snapshots{s}.List()
	if err != nil || len(list) != 1 || list[0].Index != index || list[0].Size != int64(len(want)) {
		t.Fatal(list, err)
	}
	_, r, err := snapshots{s}.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Fatal(len(got), err)
	}
}

// TestSnapshotsInParts: a snapshot is the former one until it is whole; what attempts leave goes; two at once do not meet.
func TestSnapshotsInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.close() }()
	first, second, third := noise(5*partSize/2, 1), noise(2*partSize, 2), noise(10, 3)
	if err := begin(t, s, 1, first).Close(); err != nil {
		t.Fatal(err)
	}
	current(t, s, 1, first)
	begin(t, s, 2, second) // a crash before Close
	current(t, s, 1, first)
	s.close()
	if s, err = openStore(path); err != nil {
		t.Fatal(err)
	}
	current(t, s, 1, first)
	k := begin(t, s, 3, second)
	l := begin(t, s, 4, third)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	current(t, s, 4, third)
	// The older one ends last: the log has been cut off up to the newer one, which stays.
	if err := k.Close(); !errors.Is(err, errSuperseded) {
		t.Fatal(err)
	}
	current(t, s, 4, third)
	if n := parts(t, s); n != 1 {
		t.Fatalf("%d parts for a snapshot of 1", n)
	}
	if err := begin(t, s, 5, first).Cancel(); err != nil {
		t.Fatal(err)
	}
	current(t, s, 4, third)
	if err := begin(t, s, 6, third).Close(); err != nil {
		t.Fatal(err)
	}
	if n := parts(t, s); n != 1 {
		t.Fatalf("%d parts for a snapshot of 1", n)
	}
	// A part that is missing is found.
	err = s.update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSnapshot()).Cursor()
		c.Seek([]byte("part"))
		return c.Delete()
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := (snapshots{s}).load(); err == nil {
		t.Fatal("a snapshot without its part is whole")
	}
}

// TestGapIsDamage: entries that neither the snapshot nor the log has are damage; Raft would find it out by ending the process, at every start.
func TestGapIsDamage(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var state bytes.Buffer
	if err := catalog.WriteSnapshot(&state, catalog.Empty()); err != nil {
		t.Fatal(err)
	}
	if err := begin(t, s, 5, state.Bytes()).Close(); err != nil {
		t.Fatal(err)
	}
	look := func() error {
		_, err := s.sound(newFSM(func() {}, slog.New(slog.DiscardHandler)))
		return err
	}
	if err := s.StoreLogs([]*raft.Log{{Index: 6, Term: 1}, {Index: 7, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(6, 6); err != nil {
		t.Fatal(err)
	}
	if err := look(); !errors.Is(err, ErrCorrupt) {
		t.Fatal("entry 6 is nowhere:", err)
	}
}

// TestSnapshotOfOneValue: as earlier versions wrote it.
func TestSnapshotOfOneValue(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	state := noise(1000, 1)
	meta, err := json.Marshal(struct {
		Meta raft.SnapshotMeta
		Sum  uint32
	}{raft.SnapshotMeta{ID: "x", Index: 9, Size: 1000}, crc32.Checksum(state, crc32.MakeTable(crc32.Castagnoli))})
	if err != nil {
		t.Fatal(err)
	}
	err = s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshot())
		if err := b.Put(keyMeta(), meta); err != nil {
			return err
		}
		return b.Put(keyState(), state)
	})
	if err != nil {
		t.Fatal(err)
	}
	current(t, s, 9, state)
	if err := begin(t, s, 10, state[:10]).Close(); err != nil {
		t.Fatal(err)
	}
	current(t, s, 10, state[:10])
}
