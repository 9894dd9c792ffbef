package catalog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
)

// A snapshot is "PMSCAT" and 0, 2, or 3 if Base is set (8 bytes: magic and version), the length of the JSON (8, big endian), the state as JSON, for
// each share, by its volume's id, the id (16), the length of its file tree (8) and that (filetree.Save), and the CRC-32C of all
// before it (4).
const (
	snapshotMagic = "PMSCAT\x00\x02"
	restoredMagic = "PMSCAT\x00\x03" // of a catalog that was restored: programs that do not know of that must not read it; else the same
	firstMagic    = "PMSCAT\x00\x01" // of the version that had no shares; else the same
	snapshotHead  = 16
	// MaxSnapshot bounds a snapshot, in bytes: filetree.MaxMeta and the JSON's share.
	MaxSnapshot = filetree.MaxMeta + 256<<20
)

// ErrSnapshot is returned for a snapshot that is damaged or of another version.
var ErrSnapshot = errors.New("catalog: the snapshot is damaged")

// WriteSnapshot writes a state. An error of w is returned as it is.
func WriteSnapshot(w io.Writer, s *State) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the catalog: %w", err)
	}
	sum := crc32.New(castagnoli())
	both := io.MultiWriter(sum, w)
	magic := snapshotMagic
	if s.Base != 0 {
		magic = restoredMagic
	}
	head := binary.BigEndian.AppendUint64([]byte(magic), uint64(len(body)))
	if _, err := both.Write(append(head, body...)); err != nil {
		return err
	}
	for _, v := range slices.SortedFunc(maps.Keys(s.Trees), func(a, b ids.Volume) int { return bytes.Compare(a[:], b[:]) }) {
		var tree chunks // its length goes before it
		if err := s.Trees[v].Save(&tree); err != nil {
			return err
		}
		if _, err := both.Write(binary.BigEndian.AppendUint64(v[:], tree.size)); err != nil {
			return err
		}
		for _, c := range tree.all {
			if _, err := both.Write(c); err != nil {
				return err
			}
		}
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// chunks keeps what is written, which may be long, without ever moving it.
type chunks struct {
	all  [][]byte
	size uint64
}

func (c *chunks) Write(b []byte) (int, error) {
	c.all = append(c.all, bytes.Clone(b))
	c.size += uint64(len(b))
	return len(b), nil
}

// loadTrees reads what follows the JSON.
func (s *State) loadTrees(b []byte) error {
	for len(b) > 0 {
		if len(b) < 24 || binary.BigEndian.Uint64(b[16:]) > uint64(len(b)-24) {
			return fmt.Errorf("%w: a file tree ends too early", ErrSnapshot)
		}
		v, n := ids.Volume(b[:16]), binary.BigEndian.Uint64(b[16:])
		t, err := filetree.Load(b[24 : 24+n])
		if err != nil {
			return fmt.Errorf("%w: volume %s: %w", ErrSnapshot, v, err)
		}
		if _, twice := s.Trees[v]; twice || !s.Volumes[v].Share && !s.Trash[v].Volume.Share {
			return fmt.Errorf("%w: the file tree of %s, which is no share", ErrSnapshot, v)
		}
		s.setTree(v, t)
		b = b[24+n:]
	}
	return nil
}

// DecodeSnapshot reads a state.
func DecodeSnapshot(b []byte) (*State, error) {
	if len(b) < snapshotHead+4 || len(b) > MaxSnapshot || !slices.Contains([]string{snapshotMagic, firstMagic, restoredMagic}, string(b[:8])) {
		return nil, fmt.Errorf("%w: %d bytes, or another version", ErrSnapshot, len(b))
	}
	n := binary.BigEndian.Uint64(b[8:])
	if n > uint64(len(b)-snapshotHead-4) {
		return nil, fmt.Errorf("%w: it has another length", ErrSnapshot)
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], castagnoli()) != binary.BigEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("%w: the checksum differs", ErrSnapshot)
	}
	var s State
	if err := json.Unmarshal(b[snapshotHead:snapshotHead+n], &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if err := s.loadTrees(b[snapshotHead+n : end]); err != nil {
		return nil, err
	}
	for id, v := range s.Volumes {
		if v.ID != id || len(v.InSync) == 0 {
			return nil, fmt.Errorf("%w: volume %s", ErrSnapshot, id)
		}
		if _, has := s.Trees[id]; has != v.Share {
			return nil, fmt.Errorf("%w: share %s has no file tree", ErrSnapshot, id)
		}
	}
	for id, t := range s.Trash {
		if t.Volume.ID != id || len(t.Volume.InSync) == 0 {
			return nil, fmt.Errorf("%w: volume %s in the trash", ErrSnapshot, id)
		}
		if _, has := s.Trees[id]; has != t.Volume.Share {
			return nil, fmt.Errorf("%w: share %s, in the trash, has no file tree", ErrSnapshot, id)
		}
	}
	return &s, nil
}

// Empty is the state before the first command.
func Empty() *State {
	return &State{Nodes: map[ids.Node]Node{}, Volumes: map[ids.Volume]Volume{}, Exports: map[ids.Volume]Export{}}
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
