package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// memory is what a node keeps of the catalog for the time in which it has none: after a start its state is empty until a leader tells it
// what is committed, and an admin asks most when there is no leader. It is the file "known" in the state directory: a line
// "pmsapp known 1 CRC", CRC-32C of the JSON after it in 8 hexadecimal digits. Nothing is decided by it but who may ask.
type memory struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex // guards what follows
	kept known
	file []byte
}

type known struct {
	Cluster ids.Cluster
	Admin   []byte // the digest of the admin token
	Nodes   []knownNode
}

type knownNode struct {
	ID      ids.Node
	Name    string
	Witness bool
}

const (
	knownHead = "pmsapp known 1 "
	maxKnown  = 64 << 10
)

// openMemory reads what was kept of a cluster. A file that is damaged, or another cluster's, counts for nothing: it is written anew.
func openMemory(dir string, of ids.Cluster, log *slog.Logger) (*memory, error) {
	m := &memory{path: filepath.Join(dir, "known"), log: log}
	if fi, err := os.Stat(m.path); err == nil && fi.Size() > maxKnown {
		log.Error("what was remembered of the cluster is damaged; a leader will tell it again", "path", m.path)
		return m, nil
	}
	b, err := os.ReadFile(m.path)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is remembered of the cluster: %w", err)
	}
	switch k, ok := parseKnown(b); {
	case !ok:
		log.Error("what was remembered of the cluster is damaged; a leader will tell it again", "path", m.path)
	case k.Cluster == of:
		m.kept, m.file = k, b
	}
	return m, nil
}

func parseKnown(b []byte) (k known, ok bool) {
	head, body, found := bytes.Cut(b, []byte("\n"))
	if !found || string(head) != knownCRC(body) || json.Unmarshal(body, &k) != nil {
		return known{}, false
	}
	return k, len(k.Admin) == sha256.Size && !k.Cluster.IsZero()
}

func knownCRC(body []byte) string {
	return fmt.Sprintf("%s%08x", knownHead, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// get is what was kept.
func (m *memory) get() known {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept
}

// keep keeps what a state says, if that is something new.
func (m *memory) keep(s *catalog.State) error {
	if s.Cluster.IsZero() || len(s.Admin) != sha256.Size {
		return nil
	}
	k := known{Cluster: s.Cluster, Admin: s.Admin}
	for _, n := range adapt.Nodes(s) {
		k.Nodes = append(k.Nodes, knownNode{n.ID, n.Name, n.Witness})
	}
	body, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("remembering the cluster: %w", err)
	}
	b := append([]byte(knownCRC(body)+"\n"), body...)
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Equal(b, m.file) {
		return nil
	}
	if err := cluster.WriteFile(m.path, b); err != nil {
		return err
	}
	m.kept, m.file = k, b
	return nil
}

// run keeps what the newest state says, until ctx ends.
func (m *memory) run(ctx context.Context, state func() *catalog.State) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	failed := false
	for {
		err := m.keep(state())
		if err != nil && !failed {
			m.log.Error("the cluster's nodes and the admin token are not remembered for a start without a leader", "err", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
