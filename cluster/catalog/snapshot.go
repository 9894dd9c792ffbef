package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"pmsapp/internal/ids"
)

// A snapshot is "PMSCAT" and 0, 1 (8 bytes: magic and version), the length of what follows but for the checksum (8, big
// endian), the state as JSON, and the CRC-32C of all before it (4).
const (
	snapshotMagic = "PMSCAT\x00\x01"
	snapshotHead  = 16
	// MaxSnapshot bounds a snapshot, in bytes.
	MaxSnapshot = 256 << 20
)

// ErrSnapshot is returned for a snapshot that is damaged or of another version.
var ErrSnapshot = errors.New("catalog: the snapshot is damaged")

// EncodeSnapshot writes a state.
func EncodeSnapshot(s *State) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the catalog: %w", err)
	}
	b := make([]byte, 0, snapshotHead+len(body)+4)
	b = append(b, snapshotMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli())), nil
}

// DecodeSnapshot reads a state.
func DecodeSnapshot(b []byte) (*State, error) {
	if len(b) < snapshotHead+4 || len(b) > MaxSnapshot || string(b[:8]) != snapshotMagic {
		return nil, fmt.Errorf("%w: %d bytes, or another version", ErrSnapshot, len(b))
	}
	if n := binary.BigEndian.Uint64(b[8:]); n != uint64(len(b)-snapshotHead-4) {
		return nil, fmt.Errorf("%w: it has another length", ErrSnapshot)
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], castagnoli()) != binary.BigEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("%w: the checksum differs", ErrSnapshot)
	}
	var s State
	if err := json.Unmarshal(b[snapshotHead:end], &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	for id, v := range s.Volumes {
		if v.ID != id || len(v.InSync) == 0 {
			return nil, fmt.Errorf("%w: volume %s", ErrSnapshot, id)
		}
	}
	return &s, nil
}

// Empty is the state before the first command.
func Empty() *State {
	return &State{Nodes: map[ids.Node]Node{}, Volumes: map[ids.Volume]Volume{}, Exports: map[ids.Volume]Export{}}
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
