package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
)

// Config says what to run.
type Config struct {
	Binary   string // pmsapp
	Dir      string // for the nodes' data; it is kept
	Rounds   int
	For      time.Duration // begins no round later; 0: no limit
	Kinds    []Kind        // in turn if Ordered, else at random
	Ordered  bool
	Replicas int
	Size     int64 // of the volume, in bytes
	Seed     uint64
	// Devices are the nodes' pools, if they are not directories.
	Devices []string
	Disks   string        // the program that serves disks (systemtest/powerdisk): the nodes are on such; "": not, without the kinds that need them
	Away    time.Duration // the longest absence of a node
	Least   time.Duration // the shortest
	Memory  bool          // the volume's durability is memory
	Raw     bool          // the pools are on those disks themselves, not in file systems on them
	Out     io.Writer
}

type soak struct {
	cfg     Config
	cluster *local.Cluster
	rec     *record
	load    *load
	lun     api.LUN
	hosts   *os.File // the hosts' log
	places  int      // rounds that changed the volume
	disks   []disks  // the nodes'; nil: they are on directories
	admins  admins
	members []string // the nodes with a replica, when the round began
	reads   *initiator.Disk
	closers []func() error
}

// hooks log what a host sees of failovers.
func hooks(log *slog.Logger) initiator.Hooks {
	return initiator.Hooks{
		Connected: func(portal string) { log.Info("connected", "portal", portal) },
		Lost:      func(portal string, err error) { log.Info("lost", "portal", portal, "err", err) },
		Retried:   func(portal string, why error) { log.Info("retried", "portal", portal, "why", why) },
	}
}

// Run runs the rounds. Its error says what was lost, stale or different, or what did not go on.
func Run(ctx context.Context, cfg Config) (rounds []Round, err error) {
	s := &soak{cfg: cfg, rec: newRecord(int(cfg.Size/blockSize), cfg.Seed)}
	defer func() {
		for _, c := range s.closers {
			err = errors.Join(err, c())
		}
	}()
	const nodes = 3
	if cfg.Disks != "" {
		if err := s.makeDisks(nodes); err != nil {
			return nil, err
		}
	}
	if s.cluster, err = local.New(local.Config{Binary: cfg.Binary, Dir: cfg.Dir, Nodes: nodes, Change: s.onDisks, Log: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, err
	}
	defer func() {
		s.cluster.Close()
		if s.hosts != nil {
			s.hosts.Close()
		}
	}()
	if err := s.cluster.Form(ctx); err != nil {
		return nil, err
	}
	s.admins = admins{client: s.cluster.Client(), told: map[string]bool{}}
	writes, reads, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	defer writes.Close()
	defer reads.Close()
	s.reads = reads
	s.load = start(ctx, s.rec, writes, reads, cfg.Memory)
	rounds, err = s.rounds(ctx)
	if stopErr := s.load.stop(); stopErr != nil {
		err = errors.Join(stopErr, err)
	}
	if err != nil {
		return rounds, err
	}
	if _, err := s.settled(ctx); err != nil {
		return rounds, err
	}
	if err := s.rec.readAll(ctx, reads); err != nil {
		return rounds, err
	}
	s.say("%d writes and %d reads were right; every block was read again", s.rec.count(), s.rec.reads.Load())
	if err := s.compare(ctx); err != nil {
		return rounds, err
	}
	return rounds, s.logs()
}

// logs looks for what no daemon may ever say.
func (s *soak) logs() error {
	for _, n := range s.cluster.Nodes {
		b, err := os.ReadFile(n.Log)
		if err != nil {
			return err
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if i := bytes.Index(b, []byte(bad)); i >= 0 {
				return fmt.Errorf("%s: %s", n.Name, b[i:min(len(b), i+4000)])
			}
		}
	}
	return nil
}

// prepare makes the volume and logs in, twice.
func (s *soak) prepare(ctx context.Context) (writes, reads *initiator.Disk, err error) {
	c := s.cluster.Client()
	if _, err := c.CreateVolume(ctx, api.NewVolume{Name: "soak", Size: s.cfg.Size, Replicas: s.cfg.Replicas, Durability: s.durability()}); err != nil {
		return nil, nil, fmt.Errorf("creating the volume: %w", err)
	}
	if s.lun, err = c.Export(ctx, api.NewLUN{Volume: "soak"}); err != nil {
		return nil, nil, fmt.Errorf("exporting the volume: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, "hosts.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the hosts' log: %w", err)
	}
	s.hosts = f
	return s.login(ctx, s.lun)
}

func (s *soak) durability() string {
	if s.cfg.Memory {
		return api.Memory
	}
	return api.Disk
}

// login opens a LUN twice.
func (s *soak) login(ctx context.Context, lun api.LUN) (writes, reads *initiator.Disk, err error) {
	log := slog.New(slog.NewTextHandler(s.hosts, nil))
	portals := []string{s.cluster.Virtual}
	for _, n := range s.cluster.Nodes {
		portals = append(portals, n.Config.Address.Portal)
	}
	open := func(name string) (*initiator.Disk, error) {
		octx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return initiator.OpenDisk(octx, initiator.DiskConfig{Portals: portals, Initiator: "iqn.2026-11.app.pmsapp:" + name, Target: lun.Target,
			LUN: int(lun.Number), Timeouts: initiator.PeerTimeouts(), Log: log, Hooks: hooks(log.With("host", name))})
	}
	if writes, err = open("writer"); err != nil {
		return nil, nil, fmt.Errorf("logging in: %w", err)
	}
	if reads, err = open("reader"); err != nil {
		writes.Close()
		return nil, nil, fmt.Errorf("logging in: %w", err)
	}
	return writes, reads, nil
}

func (s *soak) say(format string, a ...any) {
	fmt.Fprintf(s.cfg.Out, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, a...))
}

func (s *soak) rounds(ctx context.Context) (all []Round, err error) {
	random := rand.New(rand.NewPCG(s.cfg.Seed, 1))
	began := time.Now()
	for i := range s.cfg.Rounds {
		if s.cfg.For > 0 && time.Since(began) > s.cfg.For {
			break
		}
		k := s.cfg.Kinds[i%len(s.cfg.Kinds)]
		if !s.cfg.Ordered {
			k = s.cfg.Kinds[random.IntN(len(s.cfg.Kinds))]
			if err := s.pause(ctx, time.Duration(random.IntN(int(time.Second)))); err != nil {
				return all, err
			}
		}
		r, err := s.round(ctx, k)
		if err != nil {
			return all, fmt.Errorf("round %d (%s): %w", i+1, k, err)
		}
		all = append(all, r)
		line := fmt.Sprintf("round %d of %d: %-16s I/O stood still for %.2f s", i+1, s.cfg.Rounds, k, r.Standstill.Seconds())
		if r.Elected > 0 {
			line += fmt.Sprintf(" (take-over after %.2f, served %.2f later, first write %.2f later)", r.Elected.Seconds(), r.Served.Seconds(), r.Client.Seconds())
		}
		s.say("%s; in sync after %.1f s", line, r.Resync.Seconds())
	}
	return all, nil
}

// Table tells of the standstills by kind, beside the targets.
func Table(rounds []Round) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %6s %8s %8s %8s   %s\n", "standstill, s", "rounds", "median", "p90", "max", "target")
	for _, k := range append(Kinds(), append(DiskKinds(), Away, FullPool)...) {
		var all []time.Duration
		for _, r := range rounds {
			if r.Kind == k {
				all = append(all, r.Standstill)
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		target := "-"
		switch median, most := k.limit(); {
		case median > 0:
			target = fmt.Sprintf("median %.1f, max %.1f", median.Seconds(), most.Seconds())
		case most > 0:
			target = fmt.Sprintf("max %.1f", most.Seconds())
		}
		fmt.Fprintf(&b, "%-16s %6d %8.2f %8.2f %8.2f   %s\n", k, len(all), all[len(all)/2].Seconds(), all[len(all)*9/10].Seconds(),
			all[len(all)-1].Seconds(), target)
	}
	return b.String()
}
