package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// Backup describes the backup of a catalog.
type Backup struct {
	File    string    `json:"file,omitempty"`
	Cluster string    `json:"cluster"`
	Index   uint64    `json:"index"`           // of the catalog's state
	Newest  time.Time `json:"newest,omitzero"` // its newest event, by a leader's clock
	Nodes   int       `json:"nodes"`
	Volumes int       `json:"volumes"` // shares too
	Trash   int       `json:"trash"`
}

func about(s *catalog.State) Backup {
	return Backup{Cluster: s.Cluster.String(), Index: s.Index, Newest: s.Newest(), Nodes: len(s.Nodes), Volumes: len(s.Volumes), Trash: len(s.Trash)}
}

// backupWait is how long a node that does not lead tries to have all that the leader has.
const backupWait = 20 * time.Second

// BackupCatalog implements api.Backend. Any node's catalog will do, once it has all that was committed before the call.
func (n *node) BackupCatalog(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, backupWait)
	defer cancel()
	var least uint64
	if n.cluster.IsLeader() {
		if !n.cluster.Confirmed(ctx) {
			return nil, api.Errorf(api.ErrNoLeader, "repeat the command in a few seconds", "the leader has changed")
		}
	} else {
		if err := n.cluster.CallLeader(ctx, "index", struct{}{}, &least); err != nil {
			return nil, api.Errorf(api.ErrNoLeader, "without one, stop pmsapp on the node that was up last and use --offline there", "no node leads, so nobody knows the newest catalog: %v", err)
		}
	}
	for n.cluster.State().Index < least {
		select {
		case <-ctx.Done():
			return nil, api.Errorf(api.ErrNoLeader, "ask another node", "the catalog of %s is behind the leader's", n.cfg.Name)
		case <-time.After(20 * time.Millisecond):
		}
	}
	var b bytes.Buffer
	if err := catalog.WriteSnapshot(&b, n.cluster.State()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// handleIndex tells another node the index of the newest state that this one, as the leader, has applied.
func (n *node) handleIndex(ctx context.Context, _ ids.Node, _ struct{}) (uint64, error) {
	if !n.cluster.Confirmed(ctx) {
		return 0, cluster.ErrNotLeader
	}
	return n.cluster.State().Index, nil
}

// SaveBackup writes a backup to a file, as a whole or not at all, that only its owner may read, and proves that it can be restored. It returns
// cluster.ErrBackup for bytes that cannot.
func SaveBackup(file string, b []byte) (Backup, error) {
	s, err := cluster.ReadBackup(b)
	if err == nil {
		err = replace(file, b)
	}
	if err != nil {
		return Backup{}, plain{err}
	}
	out := about(s)
	out.File = file
	return out, nil
}

// replace writes a file that only its owner may read, durably, and then puts it in the place of what is there. Nothing that is in its directory, which
// may be anybody's, is followed or written to.
func replace(file string, b []byte) error {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: it is there, and no file", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".pmsapp-backup-*")
	if err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the backup %s: %w", file, err), os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("writing the backup %s: %w", file, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// OfflineBackup is a backup of the catalog of a node that does not run.
func OfflineBackup(cfg config.Config) ([]byte, error) {
	s, err := cluster.ReadOffline(cfg.State)
	if errors.Is(err, cluster.ErrInUse) {
		return nil, plain{fmt.Errorf("%w: stop pmsapp here first, or leave --offline out", err)}
	}
	if err != nil {
		return nil, plain{err}
	}
	var b bytes.Buffer
	err = catalog.WriteSnapshot(&b, s)
	return b.Bytes(), err
}

// ReadBackup reads the file of a backup. It returns cluster.ErrBackup.
func ReadBackup(file string) (*catalog.State, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the backup: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, catalog.MaxSnapshot+1))
	if err != nil {
		return nil, fmt.Errorf("reading the backup %s: %w", file, err)
	}
	s, err := cluster.ReadBackup(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// mounted looks whether the directories that this machine had as pools, by the backup, are there: one that is empty would become another pool.
func mounted(cfg config.Config, old *catalog.State) error {
	me, _ := old.NodeNamed(cfg.Name)
	for _, p := range me.Pools {
		for _, path := range cfg.Pools {
			if filepath.Clean(path) != filepath.Clean(p.Path) {
				continue
			}
			if names, err := os.ReadDir(path); errors.Is(err, os.ErrNotExist) || err == nil && len(names) == 0 {
				return fmt.Errorf("pools: %s was a pool of %s, and there is nothing in it: mount its disk first, or, if that is lost, take it out of the configuration", path, cfg.Name)
			}
		}
	}
	return nil
}
