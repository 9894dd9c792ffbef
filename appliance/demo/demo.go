package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfsclient"
	"pmsapp/replication/initiator"
)

// Config says how the demo runs.
type Config struct {
	Binary string // pmsapp; this program if empty
	Dir    string // for the nodes' data; what an earlier demo left there is removed
	Image  string // a disk image that is copied into the LUN; may be empty
	Once   bool   // end by itself
	Out    io.Writer
}

const (
	volume   = "demo"
	share    = "files"
	room     = 4 << 30 // bytes of the share; what is not written takes no space
	nodes    = 3
	loadArea = 128 << 20 // bytes at the end of the volume that are written at random
	minSize  = 256 << 20
	before   = 4 * time.Second // of writing before the leader is killed
	after    = 5 * time.Second // and after it
	marker   = ".pmsapp-demo"  // in a directory that is a demo's
)

// ErrFailed is returned when something did not go as it must.
var ErrFailed = errors.New("the demo failed")

// show is one run.
type show struct {
	*teller
	cfg     Config
	cluster *local.Cluster
	disk    *initiator.Disk
	load    *load
	files   *files
	server  api.ShareServer // of the share
	image   *image
	size    int64
	lun     api.LUN
	reports []string // for the end
}

// Run runs the demo. With Once it returns when the story is told, otherwise when ctx ends after it. The processes that it
// started have ended when it returns.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Binary == "" {
		if cfg.Binary, err = os.Executable(); err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
	}
	s := &show{teller: newTeller(cfg.Out), cfg: cfg}
	if err := s.prepare(); err != nil {
		return err
	}
	defer func() {
		s.say("stopping the nodes")
		if s.disk != nil {
			s.disk.Close()
		}
		if s.files != nil {
			s.files.client.Close()
		}
		s.cluster.Close()
	}()
	for _, step := range []func(context.Context) error{s.form, s.export, s.exportShare, s.fill, s.killUnderLoad, s.verify, s.bringBack,
		s.readFromReturned, s.report} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: interrupted", ErrFailed)
			}
			return fmt.Errorf("%w: %w (the nodes' logs are %s)", ErrFailed, err, filepath.Join(cfg.Dir, "node*", "log"))
		}
	}
	if cfg.Once {
		return nil
	}
	return s.linger(ctx)
}

// prepare looks at what the user gave and makes the directory and the configurations.
func (s *show) prepare() (err error) {
	s.size = minSize
	if s.cfg.Image != "" {
		if s.image, err = openImage(s.cfg.Image, 1<<42); err != nil {
			return err
		}
		s.size = max(minSize, (s.image.size+loadArea+(1<<20)-1)>>20<<20)
	}
	if err := freshDir(s.cfg.Dir); err != nil {
		return err
	}
	s.cluster, err = local.New(local.Config{Binary: s.cfg.Binary, Dir: s.cfg.Dir, Nodes: nodes, Network: "127.0.0", NFS: true, Log: slog.New(slog.DiscardHandler)})
	return err
}

// freshDir empties a directory that an earlier demo has used, and makes one that is not there. Others are left alone.
func freshDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%w: %s is not empty and no earlier demo's: choose another directory with DATA=dir", ErrFailed, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the earlier demo: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the demo's directory: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

func (s *show) form(ctx context.Context) error {
	s.say("Three nodes, each a process of its own, data in %s", s.cfg.Dir)
	stop := s.watch(func() string { return "init, two joins, an election" })
	err := s.cluster.Form(ctx)
	stop()
	if err != nil {
		return err
	}
	st, err := s.cluster.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	for i, n := range s.cluster.Nodes {
		role := ""
		if n.Name == st.Leader {
			role = ", leads"
		}
		a := n.Config.Address
		s.say("  %s: process %d, API %s, iSCSI %s, NFS %s%s", n.Name, s.cluster.Nodes[i].PID(), a.API, a.Portal, a.NFS, role)
	}
	return nil
}

func (s *show) export(ctx context.Context) (err error) {
	c := s.cluster.Client()
	st, err := c.Status(ctx, false)
	if err != nil {
		return err
	}
	v, err := c.CreateVolume(ctx, api.NewVolume{Name: volume, Size: s.size, Replicas: 2, Nodes: places(st)})
	if err != nil {
		return fmt.Errorf("creating the volume: %w", err)
	}
	if s.lun, err = c.Export(ctx, api.NewLUN{Volume: volume}); err != nil {
		return fmt.Errorf("exporting the volume: %w", err)
	}
	s.say("Volume %s: %s, replicas on %s and %s, exported as LUN %d of %s", volume, size(v.Size), v.Replicas[0].Node,
		v.Replicas[1].Node, s.lun.Number, s.lun.Target)
	if _, err := s.wait(ctx, "the volume to be served at the virtual address", 30*time.Second, func(st api.Status) bool {
		return st.Bound && served(st, 1)
	}); err != nil {
		return err
	}
	octx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if s.disk, err = initiator.OpenDisk(octx, s.diskConfig(append([]string{s.cluster.Virtual}, s.portals()...))); err != nil {
		return fmt.Errorf("logging in by iSCSI: %w", err)
	}
	s.say("Logged in by iSCSI at the virtual address %s", s.cluster.Virtual)
	return nil
}

// places are the nodes of the replicas. One of them is killed, so that there is something to bring back.
func places(st api.Status) []string {
	on := []string{st.Leader}
	for _, n := range st.Nodes {
		if n.Name != st.Leader && len(on) < 2 {
			on = append(on, n.Name)
		}
	}
	return on
}

// served tells whether the volumes, n of them, are.
func served(st api.Status, n int) bool {
	ok := st.Leader != "" && len(st.Volumes) == n
	for _, v := range st.Volumes {
		ok = ok && v.Served
	}
	return ok
}

// exportShare makes the share and the tree of files that is copied into it, and mounts it.
func (s *show) exportShare(ctx context.Context) error {
	c := s.cluster.Client()
	st, err := c.Status(ctx, false)
	if err != nil {
		return err
	}
	if _, err := c.CreateShare(ctx, api.NewVolume{Name: share, Size: room, Replicas: 2, Nodes: places(st)}); err != nil {
		return fmt.Errorf("creating the share: %w", err)
	}
	v, err := c.ExportShare(ctx, share, api.ShareRule{Client: "127.0.0.0/8", Squash: "none"})
	if err != nil {
		return fmt.Errorf("exporting the share: %w", err)
	}
	if len(v.Servers) != 1 || len(v.Warnings) > 0 {
		return fmt.Errorf("the share is exported at %v, not at the virtual address: %v", v.Servers, v.Warnings)
	}
	s.server = v.Servers[0]
	f := &files{meter: meter{begun: time.Now()}, client: nfsclient.New(nfsclient.Dial(net.JoinHostPort(s.server.Host, fmt.Sprint(s.server.Port))))}
	s.files = f
	tree := filepath.Join(s.cfg.Dir, "tree")
	if f.bytes, err = makeTree(tree, rand.New(rand.NewPCG(1, 2))); err != nil {
		return err
	}
	f.from = os.DirFS(tree)
	mctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if f.root, _, err = f.client.Mount(mctx, v.Path); err != nil {
		return fmt.Errorf("mounting the share: %w", err)
	}
	s.say("Share %s: %s, replicas on %s and %s, mounted by NFS at %s:%d", share, size(v.Size), v.Replicas[0].Node, v.Replicas[1].Node, s.server.Host, s.server.Port)
	return nil
}

func (s *show) diskConfig(portals []string) initiator.DiskConfig {
	return initiator.DiskConfig{Portals: portals, Initiator: "iqn.2026-11.app.pmsapp:demo", Target: s.lun.Target,
		LUN: int(s.lun.Number), Log: slog.New(slog.DiscardHandler)}
}

func (s *show) portals() (all []string) {
	for _, n := range s.cluster.Nodes {
		all = append(all, n.Config.Address.Portal)
	}
	return all
}

// wait waits for a state of the cluster.
func (s *show) wait(ctx context.Context, what string, limit time.Duration, f func(api.Status) bool) (api.Status, error) {
	stop := s.watch(func() string { return "waiting for " + what })
	defer stop()
	return s.cluster.WaitStatus(ctx, what, limit, f)
}

// fill copies the image.
func (s *show) fill(ctx context.Context) error {
	if s.image == nil {
		return nil
	}
	began := time.Now()
	var done atomic.Int64
	stop := s.watch(func() string {
		return fmt.Sprintf("copying %s: %s of %s", s.image.path, size(done.Load()), size(s.image.size))
	})
	err := s.image.copyTo(ctx, s.disk, done.Store)
	stop()
	if err != nil {
		return fmt.Errorf("copying the image: %w", err)
	}
	s.say("Copied %s (%s) into the LUN in %.1f s", s.image.path, size(s.image.size), time.Since(began).Seconds())
	return nil
}

// killUnderLoad writes, and kills the leader meanwhile.
func (s *show) killUnderLoad(ctx context.Context) error {
	s.load = newLoad(s.disk, s.size-loadArea, loadArea/blockSize, rand.Uint64())
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	s.files.begun = time.Now()
	go func() { ended <- s.load.run(lctx, time.Minute) }()
	go func() { ended <- s.files.run(lctx, time.Minute) }()
	s.say("Writing blocks of 4 KiB at random, %d at a time, each durable on both replicas before it is acknowledged", writers)
	s.say("Copying %d files, links and directories (%s) into the share by NFS, again and again", treeEntries, size(s.files.bytes))
	stop := s.watch(func() string {
		return fmt.Sprintf("%d writes acknowledged, %d files copied", s.load.acked.Load(), s.files.acked.Load())
	})
	defer func() { stop() }()
	if err := s.pause(ctx, ended, before); err != nil {
		return err
	}
	st, err := s.cluster.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	old := s.cluster.Index(st.Leader)
	if old < 0 {
		return fmt.Errorf("no node leads")
	}
	count, copied, pid := s.load.acked.Load(), s.files.acked.Load(), s.cluster.Nodes[old].PID()
	killed := time.Now()
	if err := s.cluster.Kill(old); err != nil {
		return err
	}
	s.say("SIGKILL for %s (process %d): it led in epoch %d; %d writes were acknowledged by then, %d files copied", st.Leader, pid, st.Epoch, count, copied)
	next, err := s.cluster.WaitStatus(ctx, "another node to serve the volumes", 30*time.Second, func(n api.Status) bool {
		return n.Leader != st.Leader && served(n, 2)
	})
	if err != nil {
		return err
	}
	s.say("%s leads in epoch %d and serves both", next.Leader, next.Epoch)
	if err := s.pause(ctx, ended, after); err != nil {
		return err
	}
	cancel()
	for range cap(ended) {
		if err := <-ended; err != nil {
			return fmt.Errorf("an I/O error reached the program: %w", err)
		}
	}
	stop()
	stop = func() {}
	stand, nfs := s.load.standstill(killed), s.files.standstill(killed)
	s.say("iSCSI stood still for %.2f s; no write failed; %d writes were acknowledged in all", stand.Seconds(), s.load.acked.Load())
	s.say("NFS stood still for %.2f s; no call failed; %d files were copied in all, %s", nfs.Seconds(), s.files.acked.Load(), size(s.files.copies.Load()*s.files.bytes))
	s.reports = append(s.reports, fmt.Sprintf("who led         %s in epoch %d; after its death %s in epoch %d", st.Leader, st.Epoch, next.Leader, next.Epoch),
		fmt.Sprintf("standstill      iSCSI %.2f s, NFS %.2f s", stand.Seconds(), nfs.Seconds()))
	return nil
}

// pause lets the load run for a while.
func (s *show) pause(ctx context.Context, ended <-chan error, d time.Duration) error {
	select {
	case err := <-ended:
		return fmt.Errorf("an I/O error reached the program: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// verify reads everything back through the node that serves now.
func (s *show) verify(ctx context.Context) error {
	stop := s.watch(func() string { return "reading every acknowledged block back" })
	n, err := s.load.verify(ctx)
	stop()
	if err != nil {
		return err
	}
	s.say("All %d blocks that were acknowledged read back as written, through the new leader", n)
	line := fmt.Sprintf("nothing lost    %d blocks compared, %d writes", n, s.load.acked.Load())
	if err := s.compareFiles(ctx); err != nil {
		return err
	}
	line += fmt.Sprintf("; %d files, %s", s.files.copies.Load()*treeEntries, size(s.files.copies.Load()*s.files.bytes))
	if s.image != nil {
		if err := s.compareImage(ctx); err != nil {
			return err
		}
		line += ", and the image " + s.image.path
	}
	s.reports = append(s.reports, line)
	return nil
}

func (s *show) compareFiles(ctx context.Context) error {
	stop := s.watch(func() string { return "comparing the files in the share" })
	err := s.files.compare(ctx)
	stop()
	if err != nil {
		return err
	}
	s.say("All %d copies of the tree (%s) are in the share as they were copied, byte by byte", s.files.copies.Load(), size(s.files.copies.Load()*s.files.bytes))
	return nil
}

func (s *show) compareImage(ctx context.Context) error {
	var done atomic.Int64
	stop := s.watch(func() string {
		return fmt.Sprintf("comparing %s: %s of %s", s.image.path, size(done.Load()), size(s.image.size))
	})
	err := s.image.compare(ctx, s.disk, done.Store)
	stop()
	if err != nil {
		return err
	}
	s.say("The image in the LUN is the file, byte by byte")
	return nil
}
