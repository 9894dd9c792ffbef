package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pmsapp/cluster/catalog"
)

// snapshots is a raft.SnapshotStore that keeps the newest snapshot: one transaction takes the place of the former.
type snapshots struct{ *store }

// snapshotMeta is what goes with a snapshot, as JSON; Sum is the CRC-32C of the state.
type snapshotMeta struct {
	Meta raft.SnapshotMeta
	Sum  uint32
}

func keyMeta() []byte  { return []byte("meta") }
func keyState() []byte { return []byte("state") }

// Create implements raft.SnapshotStore.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	_ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d: %w", version, ErrCorrupt)
	}
	return &sink{store: s.store, meta: raft.SnapshotMeta{Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index,
		Term: term, Configuration: conf, ConfigurationIndex: confIndex}}, nil
}

// List implements raft.SnapshotStore.
func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	m, state, err := s.load()
	if err != nil || state == nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{&m}, nil
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
		meta := b.Get(keyMeta())
		if meta == nil {
			return nil
		}
		var sm snapshotMeta
		if err := json.Unmarshal(meta, &sm); err != nil {
			return fmt.Errorf("the snapshot: %w: %w", ErrCorrupt, err)
		}
		state = append([]byte{}, b.Get(keyState())...)
		if sm.Sum != crc32.Checksum(state, crc32.MakeTable(crc32.Castagnoli)) {
			return fmt.Errorf("the snapshot: %w: the checksum differs", ErrCorrupt)
		}
		m = sm.Meta
		m.Size = int64(len(state))
		return nil
	})
	return m, state, err
}

// sink collects a snapshot.
type sink struct {
	store *store
	meta  raft.SnapshotMeta
	buf   bytes.Buffer
	over  bool
}

func (k *sink) ID() string { return k.meta.ID }

func (k *sink) Write(b []byte) (int, error) {
	if k.buf.Len()+len(b) > catalog.MaxSnapshot {
		return 0, fmt.Errorf("a snapshot of more than %d bytes: %w", catalog.MaxSnapshot, ErrCorrupt)
	}
	return k.buf.Write(b)
}

// Close makes the snapshot durable.
func (k *sink) Close() error {
	if k.over {
		return nil
	}
	k.over = true
	state := k.buf.Bytes()
	k.meta.Size = int64(len(state))
	meta, err := json.Marshal(snapshotMeta{k.meta, crc32.Checksum(state, crc32.MakeTable(crc32.Castagnoli))})
	if err != nil {
		return fmt.Errorf("encoding a snapshot's description: %w", err)
	}
	return k.store.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnapshot())
		if err := b.Put(keyMeta(), meta); err != nil {
			return err
		}
		return b.Put(keyState(), state)
	})
}

func (k *sink) Cancel() error { k.over = true; return nil }
