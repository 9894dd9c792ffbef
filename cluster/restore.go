package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
)

// ReadBackup reads what catalog.WriteSnapshot has written of a node's State, for Init. It returns ErrBackup.
func ReadBackup(b []byte) (*catalog.State, error) {
	s, err := catalog.DecodeSnapshot(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return s, usable(s)
}

func usable(s *catalog.State) error {
	if s.Cluster.IsZero() || s.Index == 0 {
		return fmt.Errorf("%w: there is nothing in it yet", ErrBackup)
	}
	for _, n := range s.Nodes { // nobody proposes a command that the oldest does not know, but it may have what this program does not
		if n.Version > catalog.Version {
			return fmt.Errorf("%w: node %s was of a newer program (%s): use that", ErrBackup, n.Name, n.Release)
		}
	}
	return nil
}

// ReadOffline reads the catalog in the state directory of a node that does not run, for a backup; nothing is written there. It is all that the log
// has, what was never committed too: nothing of a backup is believed of the replicas, so that does no harm, but for deletions that are final. What
// those took is in the trash. It returns ErrInUse, ErrCorrupt, or ErrBackup.
func ReadOffline(dir string) (s *catalog.State, err error) {
	path := catalogPath(dir)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no %s", ErrBackup, path)
	case err == nil && (!info.Mode().IsRegular() || info.Size() == 0):
		return nil, fmt.Errorf("%w: %s is empty, or no file", ErrBackup, path)
	}
	defer func() {
		if r := recover(); r != nil { // bbolt panics over some damages
			s, err = nil, fmt.Errorf("%s: %w: %v", path, ErrCorrupt, r)
		}
	}()
	store, err := readStore(path)
	if err != nil {
		return nil, err
	}
	defer store.close()
	_, b, err := snapshots{store}.load()
	if err != nil {
		return nil, err
	}
	s = catalog.Empty()
	if b != nil {
		if s, err = catalog.DecodeSnapshot(b); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
		}
	}
	var deleted catalog.Deletions
	err = store.each(func(l *raft.Log) error {
		if l.Type == raft.LogCommand && l.Index > s.Index {
			before := s
			s, _, _ = catalog.Apply(s, l.Index, l.Data) // one that is rejected changes nothing
			deleted.Note(before, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s = deleted.TakenBack(s)
	return s, usable(s)
}
