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
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/bench/measure"
)

// startOurs starts three nodes and makes a LUN for each number of replicas, one of them at the leader.
func startOurs(ctx context.Context, program, dir string) (sides []*side, stop func(), err error) {
	bin, err := filepath.Abs(program)
	if err != nil {
		return nil, nil, err
	}
	c, err := local.New(local.Config{Binary: bin, Dir: dir, Nodes: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	if err = c.Form(ctx); err == nil {
		for _, n := range strings.Split(*copies, ",") {
			var s *side
			if s, err = makeLUN(ctx, c, n); err != nil {
				break
			}
			sides = append(sides, s)
		}
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return sides, c.Close, nil
}

func makeLUN(ctx context.Context, c *local.Cluster, replicas string) (*side, error) {
	n, err := strconv.Atoi(replicas)
	if err != nil || n < 1 || n > 2 {
		return nil, fmt.Errorf("-replicas %s: it is 1, 2, or 2,1", replicas)
	}
	st, err := c.Client().Status(ctx, false)
	if err != nil {
		return nil, err
	}
	on := []string{st.Leader}
	for _, x := range st.Nodes {
		if x.Name != st.Leader {
			on = append(on, x.Name)
		}
	}
	s := &side{name: fmt.Sprintf("pmsapp, %d replicas", n), copies: n}
	if n == 1 {
		s.name = "pmsapp, 1 replica"
	}
	for i, name := range []string{"leader", "follower"}[:n] {
		s.procs = append(s.procs, measure.Proc{Name: name, PID: c.Nodes[c.Index(on[i])].PID()})
	}
	volume := "bench" + replicas
	if _, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: volume, Size: *size, Replicas: n, Nodes: on[:n]}); err != nil {
		return nil, err
	}
	lun, err := c.Client().Export(ctx, api.NewLUN{Volume: volume})
	if err != nil {
		return nil, err
	}
	s.portal, s.target, s.lun = c.Nodes[c.Index(st.Leader)].Config.Address.Portal, lun.Target, int(lun.Number)
	_, err = c.WaitStatus(ctx, "the volume to be served", 30*time.Second, func(st api.Status) bool {
		for _, v := range st.Volumes {
			if v.Name == volume {
				return v.Served
			}
		}
		return false
	})
	return s, err
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
	s := &side{name: "tgtd", portal: portal, target: name, lun: 1, procs: []measure.Proc{{Name: "tgtd", PID: daemon.Process.Pid}}}
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
