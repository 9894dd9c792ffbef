package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// store is Raft's log, stable store and snapshots in one bbolt file (docs/FORMATS.md).
type store struct {
	db *bbolt.DB

	mu    sync.Mutex           // guards what follows
	under map[uint64]time.Time // when each write transaction began that is under way, or waits for another
	last  uint64
	// written is how many durable transactions the file has had: what a pool is told beside an epoch (invariant 9).
	written uint64
	run     uint64              // the newest run of a snapshot's parts
	runs    map[uint64]struct{} // those that are being written
}

func bucketLog() []byte      { return []byte("log") }
func bucketStable() []byte   { return []byte("stable") }
func bucketSnapshot() []byte { return []byte("snapshot") }

// openStore opens or makes the file. It returns ErrInUse, or ErrCorrupt for what is no bbolt file or a damaged one.
func openStore(path string) (s *store, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics over some damages
			s, err = nil, fmt.Errorf("%s: %w: %v", path, ErrCorrupt, r)
		}
	}()
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case err != nil && (errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist)):
		return nil, fmt.Errorf("opening the catalog: %w", err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	st := &store{db: db, under: map[uint64]time.Time{}, runs: map[uint64]struct{}{}}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketLog(), bucketStable(), bucketSnapshot()} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		st.written, err = st.GetUint64(keyWritten())
		if errors.Is(err, errNotFound) { // a new file, or of a program that did not count
			err = nil
		}
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	return st, nil
}

// readStore opens the file to read it, as it is, and nothing else. It returns ErrInUse or ErrCorrupt.
func readStore(path string) (*store, error) {
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("opening the catalog: %w", err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketLog(), bucketStable(), bucketSnapshot()} {
			if tx.Bucket(b) == nil {
				return fmt.Errorf("%s: %w: it has no %s", path, ErrCorrupt, b)
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return &store{db: db}, nil
}

// keyWritten is in the bucket of the stable store; its name is none of hashicorp/raft's.
func keyWritten() []byte { return []byte("pmsapp.Written") }

func (s *store) close() error { return s.db.Close() }

// update is a durable transaction, counted, and under the eye of hanging.
func (s *store) update(f func(tx *bbolt.Tx) error) error {
	s.mu.Lock()
	s.last++
	id := s.last
	s.under[id] = time.Now()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.under, id)
		s.mu.Unlock()
	}()
	var n uint64
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketStable())
		if v := b.Get(keyWritten()); len(v) == 8 {
			n = binary.BigEndian.Uint64(v)
		}
		n++
		if err := b.Put(keyWritten(), key(n)); err != nil {
			return err
		}
		return f(tx)
	})
	if err == nil { // not before: a transaction that is visible need not be durable yet
		s.mu.Lock()
		s.written = max(s.written, n)
		s.mu.Unlock()
	}
	return err
}

// count is how many durable transactions there have been. It never falls, but when the file is put back to an earlier state.
func (s *store) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// hanging is how long the oldest write transaction under way has taken since a moment; 0 if there is none.
func (s *store) hanging(since time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, began := range s.under {
		longest = max(longest, min(time.Since(began), time.Since(since)))
	}
	return longest
}

func key(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (i uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketLog()).Cursor().First(); len(k) == 8 {
			i = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return i, err
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (i uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketLog()).Cursor().Last(); len(k) == 8 {
			i = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return i, err
}

// IsMonotonic has Raft remove the log when a snapshot from the leader replaces it: there are no gaps.
func (s *store) IsMonotonic() bool { return true }

// GetLog implements raft.LogStore.
func (s *store) GetLog(i uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketLog()).Get(key(i))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decodeLog(i, v, l)
	})
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all of them with one flush.
func (s *store) StoreLogs(logs []*raft.Log) error {
	return s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLog())
		for _, l := range logs {
			if err := b.Put(key(l.Index), encodeLog(l)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(lo, hi uint64) error {
	return s.update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketLog()).Cursor()
		for k, _ := c.Seek(key(lo)); len(k) == 8 && binary.BigEndian.Uint64(k) <= hi; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// errNotFound has the text that hashicorp/raft compares.
var errNotFound = errors.New("not found")

// Set implements raft.StableStore.
func (s *store) Set(k, v []byte) error {
	return s.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketStable()).Put(k, v) })
}

// Get implements raft.StableStore.
func (s *store) Get(k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketStable()).Get(k)
		if b == nil {
			return errNotFound
		}
		v = append([]byte{}, b...)
		return nil
	})
	return v, err
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(k []byte, v uint64) error { return s.Set(k, key(v)) }

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	switch {
	case err != nil:
		return 0, err
	case len(v) != 8:
		return 0, fmt.Errorf("the number %q: %w", k, ErrCorrupt)
	}
	return binary.BigEndian.Uint64(v), nil
}

// An entry is its version (1), type (1), term (8), time (8, nanoseconds since 1970), the length of the extensions (4), the
// extensions, the data, and the CRC-32C of the index (8) and all that (4).
const (
	logVersion = 1
	logHead    = 22
)

func encodeLog(l *raft.Log) []byte {
	b := make([]byte, 0, logHead+len(l.Extensions)+len(l.Data)+4)
	b = append(b, logVersion, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.BigEndian.AppendUint32(b, sumLog(l.Index, b))
}

func decodeLog(i uint64, b []byte, l *raft.Log) error {
	if len(b) < logHead+4 || b[0] != logVersion {
		return fmt.Errorf("log entry %d: %w: %d bytes, or another version", i, ErrCorrupt, len(b))
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	n := uint64(binary.BigEndian.Uint32(b[18:]))
	if sumLog(i, body) != sum || n > uint64(len(body)-logHead) {
		return fmt.Errorf("log entry %d: %w: the checksum differs", i, ErrCorrupt)
	}
	*l = raft.Log{Index: i, Type: raft.LogType(b[1]), Term: binary.BigEndian.Uint64(b[2:])}
	if at := int64(binary.BigEndian.Uint64(b[10:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	// Copies: the bytes are bbolt's.
	if n > 0 {
		l.Extensions = append([]byte{}, body[logHead:logHead+n]...)
	}
	l.Data = append([]byte{}, body[logHead+n:]...)
	return nil
}

func sumLog(i uint64, b []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(key(i), t), t, b)
}
