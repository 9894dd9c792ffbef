package appliance

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/replication/replica"
)

// TokenName is the file of the admin token in the state directory of the node that made the cluster.
const TokenName = "admin.token"

// minProcs is how many goroutines may at least be in the program or in a system call at once. A command on a disk is a system
// call that blocks; the scheduler takes its processor away from it only after a while, so that on a machine with two a disk
// would get two commands at a time, and everything else none.
const minProcs = 8

// Serve runs the node of a configuration file until ctx ends, and logs to out. SIGHUP has it read the file again.
func Serve(ctx context.Context, file string, out io.Writer) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(minProcs, runtime.GOMAXPROCS(0)))
	}
	var level slog.LevelVar
	level.Set(cfg.Log.Level)
	log := newLogger(out, cfg.Log.Format, &level)

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reloads := make(chan config.Reloadable)
	go func() {
		for {
			select {
			case <-rctx.Done():
				return
			case <-hup:
			}
			next, err := config.Load(file)
			if err != nil {
				log.Error("the configuration was not read again; what holds goes on holding", "err", err)
				continue
			}
			level.Set(next.Log.Level)
			select {
			case reloads <- next.Reloadable:
			case <-rctx.Done():
				return
			}
		}
	}()
	return explain(run(ctx, cfg, log, reloads), file)
}

func newLogger(out io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(out, o))
	}
	return slog.New(slog.NewTextHandler(out, o))
}

// plain is an error in an admin's words: packages are the program's affair.
type plain struct{ error }

func (p plain) Error() string { return plainly(p.error) }
func (p plain) Unwrap() error { return p.error }

// explain adds what the user can do about an error.
func explain(err error, file string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrNoCluster):
		return plain{fmt.Errorf("%w: pmsapp init --config %s makes a new one; pmsapp join TOKEN --config %s joins the one where "+
			"pmsapp node token printed TOKEN", cluster.ErrNoCluster, file, file)}
	case errors.Is(err, cluster.ErrRemoved):
		return plain{fmt.Errorf("%w: to use this machine again, empty its state directory and its pools, and let it join", err)}
	case errors.Is(err, cluster.ErrInUse), errors.Is(err, replica.ErrInUse):
		return plain{fmt.Errorf("%w: is pmsapp serve running already?", err)}
	}
	return plain{err}
}

// Made says what Init or Join made.
type Made struct {
	Cluster   string `json:"cluster"`
	Node      string `json:"node"`
	TokenFile string `json:"token_file,omitempty"` // of the admin token; Init's only
	// Backup is what the catalog was restored from, and Absent the names of the other nodes that it knows.
	Backup *Backup  `json:"backup,omitempty"`
	Absent []string `json:"absent,omitempty"`
}

// Init makes this machine the first node of a new cluster, or, with the file of a backup, of that cluster. It returns cluster.ErrMember if it is a
// node already, and cluster.ErrBackup.
func Init(_ context.Context, cfg config.Config, backup string) (Made, error) {
	a, err := advertise(cfg)
	if err != nil {
		return Made{}, err
	}
	var old *catalog.State
	if backup != "" {
		if old, err = ReadBackup(backup); err == nil {
			err = mounted(cfg, old)
		}
		if err != nil {
			return Made{}, plain{err}
		}
	}
	token := filepath.Join(cfg.State, TokenName)
	m, err := cluster.Init(cfg.State, cfg.Name, a.cluster, old, func(ca *x509.Certificate) (string, error) {
		t := api.MakeToken(ca)
		return t, cluster.WriteFile(token, []byte(t+"\n"))
	})
	if err != nil {
		return Made{}, plain{err}
	}
	made := Made{Cluster: m.Cluster.String(), Node: m.Node.String(), TokenFile: token}
	if old != nil {
		b := about(old)
		made.Backup = &b
		for _, n := range adapt.Nodes(old) {
			if n.Name != cfg.Name {
				made.Absent = append(made.Absent, n.Name)
			}
		}
	}
	return made, nil
}

// Join makes this machine a node of the cluster that gave the token; it is known there once it runs. It returns
// cluster.ErrMember if it is a node already, and cluster.ErrToken.
func Join(ctx context.Context, cfg config.Config, token string, witness bool) (Made, error) {
	if witness && len(cfg.Pools) > 0 {
		return Made{}, errors.New("pools: a witness has none: take them out of the configuration, or join without --witness")
	}
	if _, err := advertise(cfg); err != nil {
		return Made{}, err
	}
	m, err := cluster.Join(ctx, cfg.State, cfg.Name, token, witness)
	if err != nil {
		return Made{}, plain{err}
	}
	return Made{Cluster: m.Cluster.String(), Node: m.Node.String()}, nil
}
