package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pmsapp/cluster/catalog"
)

// snapshots is a raft.SnapshotStore that keeps the newest snapshot. A snapshot may be large, and a transaction that wrote it as a
// whole would hold up the log for as long: it is written in parts, each in a transaction of its own, and the last transaction
// makes them the snapshot. Parts that are not the snapshot's are what an attempt has left; the next one removes them.
type snapshots struct{ *store }

// snapshotMeta is what goes with a snapshot, as JSON; Sum is the CRC-32C of the state.
type snapshotMeta struct {
	Meta  raft.SnapshotMeta
	Sum   uint32
	Run   uint64 `json:",omitempty"` // the run of parts that it is; 0: it is under keyState as a whole
	Parts uint32 `json:",omitempty"`
}

func keyMeta() []byte  { return []byte("meta") }
func keyState() []byte { return []byte("state") }

// keyPart is "part", the run (8) and the number of the part in it (4).
func keyPart(run uint64, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte("part"), run), n)
}

// partSize is what is written to the log's file at once, in bytes.
const partSize = 1 << 20

// Create implements raft.SnapshotStore.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	_ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d: %w", version, ErrCorrupt)
	}
	k := &sink{store: s.store, meta: raft.SnapshotMeta{Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index,
		Term: term, Configuration: conf, ConfigurationIndex: confIndex}}
	sm, _, err := s.about()
	if err != nil {
		return nil, err
	}
	k.run = s.beginRun(sm.Run)
	if err := s.sweep(); err != nil {
		k.Cancel()
		return nil, err
	}
	return k, nil
}

// begin writes the first snapshot of a catalog that begins with a state instead of a log.
func (s *store) begin(conf raft.Configuration, st *catalog.State) error {
	k, err := snapshots{s}.Create(1, st.Index, 1, conf, st.Index, nil)
	if err != nil {
		return err
	}
	if err := catalog.WriteSnapshot(k, st); err != nil {
		k.Cancel()
		return err
	}
	return k.Close()
}

// beginRun returns a number for a run of parts: none that is under way, or was, has it. Raft may write two at once.
func (s snapshots) beginRun(last uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = max(s.run, last) + 1
	s.runs[s.run] = struct{}{}
	return s.run
}

func (s snapshots) endRun(run uint64) {
	s.mu.Lock()
	delete(s.runs, run)
	s.mu.Unlock()
}

// stays tells whether a part is the snapshot's, or of a run that is under way.
func (s snapshots) stays(k []byte, snapshot uint64) bool {
	if len(k) != 16 {
		return false
	}
	run := binary.BigEndian.Uint64(k[4:])
	s.mu.Lock()
	defer s.mu.Unlock()
	_, under := s.runs[run]
	return under || run == snapshot
}

// sweep removes what attempts and former snapshots have left, some at a time.
func (s snapshots) sweep() error {
	for more := true; more; {
		err := s.update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketSnapshot())
			sm, _, err := aboutIn(b)
			if err != nil {
				return err
			}
			var old [][]byte
			c := b.Cursor()
			for k, _ := c.Seek([]byte("part")); bytes.HasPrefix(k, []byte("part")) && len(old) < 16; k, _ = c.Next() {
				if !s.stays(k, sm.Run) {
					old = append(old, bytes.Clone(k))
				}
			}
			more = len(old) > 0
			for _, k := range old {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("removing a former snapshot: %w", err)
		}
	}
	return nil
}

// about reads what goes with the snapshot, if there is one.
func (s snapshots) about() (sm snapshotMeta, ok bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		sm, ok, err = aboutIn(tx.Bucket(bucketSnapshot()))
		return err
	})
	return sm, ok, err
}

func aboutIn(b *bbolt.Bucket) (sm snapshotMeta, ok bool, err error) {
	meta := b.Get(keyMeta())
	if meta == nil {
		return sm, false, nil
	}
	if err := json.Unmarshal(meta, &sm); err != nil {
		return sm, false, fmt.Errorf("the snapshot: %w: %w", ErrCorrupt, err)
	}
	return sm, true, nil
}

// List implements raft.SnapshotStore.
func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	sm, ok, err := s.about()
	if err != nil || !ok {
		return nil, err
	}
	return []*raft.SnapshotMeta{&sm.Meta}, nil
}

// Open implements raft.SnapshotStore.
func (s snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, state, err := s.load()
	switch {
	case err != nil:
		return nil, nil, err
	case state == nil || m.ID != id:
		return nil, nil, fmt.Errorf("snapshot %s is not there", id)
	}
	return &m, io.NopCloser(bytes.NewReader(state)), nil
}

// load returns a nil state if there is no snapshot.
func (s snapshots) load() (m raft.SnapshotMeta, state []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshot())
		sm, ok, err := aboutIn(b)
		if err != nil || !ok {
			return err
		}
		if sm.Run == 0 {
			state = append([]byte{}, b.Get(keyState())...)
		}
		for n := range sm.Parts {
			p := b.Get(keyPart(sm.Run, n))
			if p == nil || len(state)+len(p) > catalog.MaxSnapshot {
				return fmt.Errorf("the snapshot: %w: part %d of %d is missing, or too long", ErrCorrupt, n, sm.Parts)
			}
			state = append(state, p...)
		}
		if sm.Sum != crc32.Checksum(state, crc32.MakeTable(crc32.Castagnoli)) {
			return fmt.Errorf("the snapshot: %w: the checksum differs", ErrCorrupt)
		}
		m = sm.Meta
		m.Size = int64(len(state))
		return nil
	})
	return m, state, err
}

// sink writes a snapshot.
type sink struct {
	store *store
	meta  raft.SnapshotMeta
	run   uint64
	parts uint32
	sum   uint32
	size  int64
	buf   []byte // the part that is not full
	over  bool
}

func (k *sink) ID() string { return k.meta.ID }

func (k *sink) Write(b []byte) (int, error) {
	if k.size+int64(len(b)) > catalog.MaxSnapshot {
		return 0, fmt.Errorf("a snapshot of more than %d bytes: %w", catalog.MaxSnapshot, ErrCorrupt)
	}
	k.size += int64(len(b))
	k.sum = crc32.Update(k.sum, crc32.MakeTable(crc32.Castagnoli), b)
	for rest := b; len(rest) > 0; {
		n := min(partSize-len(k.buf), len(rest))
		k.buf, rest = append(k.buf, rest[:n]...), rest[n:]
		if len(k.buf) == partSize {
			if err := k.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// flush makes a part durable.
func (k *sink) flush() error {
	err := k.store.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketSnapshot()).Put(keyPart(k.run, k.parts), k.buf) })
	if err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	k.parts++
	k.buf = nil // bbolt may still have it
	return nil
}

// Close makes the snapshot durable.
func (k *sink) Close() error {
	if k.over {
		return nil
	}
	k.over = true
	defer snapshots{k.store}.endRun(k.run)
	if len(k.buf) > 0 {
		if err := k.flush(); err != nil {
			return err
		}
	}
	k.meta.Size = k.size
	meta, err := json.Marshal(snapshotMeta{k.meta, k.sum, k.run, k.parts})
	if err != nil {
		return fmt.Errorf("encoding a snapshot's description: %w", err)
	}
	err = k.store.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshot())
		// Raft cuts the log off behind a snapshot from the leader, and this one may have been under way since before.
		if sm, ok, err := aboutIn(b); err != nil {
			return err
		} else if ok && sm.Meta.Index > k.meta.Index {
			return fmt.Errorf("a snapshot up to entry %d, and there is one up to %d: %w", k.meta.Index, sm.Meta.Index, errSuperseded)
		}
		if err := b.Put(keyMeta(), meta); err != nil {
			return err
		}
		return b.Delete(keyState())
	})
	snapshots{k.store}.endRun(k.run)
	return errors.Join(err, snapshots{k.store}.sweep())
}

// errSuperseded is returned at the end of a snapshot where a newer one came meanwhile.
var errSuperseded = errors.New("a newer snapshot came meanwhile")

// Cancel gives it up; the next attempt removes its parts.
func (k *sink) Cancel() error {
	k.over = true
	snapshots{k.store}.endRun(k.run)
	return nil
}
