package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
)

// startOurs starts three nodes and makes a LUN with two replicas, one of them at the leader.
func startOurs(ctx context.Context, dir string) (*side, error) {
	bin, err := filepath.Abs(*binary)
	if err != nil {
		return nil, err
	}
	c, err := local.New(local.Config{Binary: bin, Dir: dir, Nodes: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	s := &side{name: "pmsapp", stop: c.Close}
	if err := s.makeLUN(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (s *side) makeLUN(ctx context.Context, c *local.Cluster) error {
	if err := c.Form(ctx); err != nil {
		return err
	}
	st, err := c.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	on := []string{st.Leader}
	for _, n := range st.Nodes {
		if n.Name != st.Leader {
			on = append(on, n.Name)
		}
	}
	for i, name := range []string{"leader", "follower"} {
		s.procs = append(s.procs, proc{name, c.Nodes[c.Index(on[i])].PID()})
	}
	if _, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: "bench", Size: *size, Replicas: *copies, Nodes: on[:*copies]}); err != nil {
		return err
	}
	lun, err := c.Client().Export(ctx, api.NewLUN{Volume: "bench"})
	if err != nil {
		return err
	}
	s.portal, s.target, s.lun = c.Nodes[c.Index(st.Leader)].Config.Address.Portal, lun.Target, int(lun.Number)
	_, err = c.WaitStatus(ctx, "the volume to be served", 30*time.Second, func(st api.Status) bool {
		return len(st.Volumes) == 1 && st.Volumes[0].Served
	})
	return err
}

// startTgtd starts tgtd with one LUN in a file, write cache off: each write is synced before it is answered.
func startTgtd(ctx context.Context, dir string) (*side, error) {
	const sockets, name = "/var/run/tgtd", "iqn.2001-04.com.example:tgtd"
	if err := os.MkdirAll(sockets, 0o755); err != nil {
		return nil, fmt.Errorf("it needs %s: %w", sockets, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	portal, port := l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	l.Close()
	image := filepath.Join(dir, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, *size); err != nil {
		return nil, err
	}
	control := fmt.Sprint(port % 32768)
	var log bytes.Buffer
	daemon := exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+portal)
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return nil, fmt.Errorf("%w (Debian package tgt)", err)
	}
	s := &side{name: "tgtd", portal: portal, target: name, lun: 1, procs: []proc{{"tgtd", daemon.Process.Pid}}}
	s.stop = func() {
		daemon.Process.Kill() // it would wait for its targets
		daemon.Wait()
		os.Remove(sockets + "/socket." + control)
		os.Remove(sockets + "/socket." + control + ".lock")
	}
	admin := func(args ...string) error {
		out, err := exec.CommandContext(ctx, "tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tgtadm %v: %w: %s", args, err, out)
		}
		return nil
	}
	for range 250 {
		if err = admin("--mode", "sys", "--op", "show"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	err = errors.Join(err, admin("--mode", "target", "--op", "new", "--tid", "1", "--targetname", name),
		admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", image),
		// The caching mode page without WCE.
		admin("--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params",
			"mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0"),
		admin("--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"))
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}
