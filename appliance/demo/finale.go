package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/replication/initiator"
)

// bringBack starts the node that was killed, and waits until both replicas are in sync again.
func (s *show) bringBack(ctx context.Context) error {
	for i, n := range s.cluster.Nodes {
		if n.Running() {
			continue
		}
		if err := s.cluster.Start(i); err != nil {
			return err
		}
		s.say("%s is started again (process %d)", n.Name, n.PID())
	}
	began := time.Now()
	var progress atomic.Value
	progress.Store("the node comes up")
	var copied int64
	stop := s.watch(func() string { return progress.Load().(string) })
	_, err := s.cluster.WaitStatus(ctx, "both replicas to be in sync", 10*time.Minute, func(st api.Status) bool {
		all := len(st.Volumes) == 2 && len(st.Nodes) == nodes
		for _, v := range st.Volumes {
			for _, r := range v.Replicas {
				all = all && r.State == "in sync"
				if r.Total > 0 {
					copied = max(copied, r.Copied)
					progress.Store(fmt.Sprintf("resync of %s: %s of %s looked at, %s copied", r.Node, size(r.Done), size(r.Total), size(r.Copied)))
				}
			}
		}
		for _, n := range st.Nodes {
			all = all && n.State == "alive"
		}
		return all
	})
	stop()
	if err != nil {
		return err
	}
	copied = max(copied, s.resynced(ctx))
	s.say("Resync done in %.1f s: %s copied", time.Since(began).Seconds(), size(copied))
	s.reports = append(s.reports, fmt.Sprintf("resync          %s copied in %.1f s after the restart", size(copied), time.Since(began).Seconds()))
	return nil
}

// readFromReturned hands over to the replica that was brought back, and reads everything there.
func (s *show) readFromReturned(ctx context.Context) error {
	st, err := s.cluster.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	to := ""
	for _, v := range st.Volumes {
		for _, r := range v.Replicas {
			if v.Name == volume && r.Node != st.Leader {
				to = r.Node
			}
		}
	}
	began := time.Now()
	if err := s.cluster.Client().Transfer(ctx, to); err != nil {
		return fmt.Errorf("handing over to %s: %w", to, err)
	}
	next, err := s.wait(ctx, to+" to serve", 30*time.Second, func(st api.Status) bool {
		return st.Leader == to && served(st, 2) && st.Bound
	})
	if err != nil {
		return err
	}
	s.say("Handed over to %s (epoch %d) in %.2f s, as before maintenance of a host", to, next.Epoch, time.Since(began).Seconds())
	if n, err := s.load.verify(ctx); err != nil {
		return err
	} else {
		s.say("All %d blocks read back there too", n)
	}
	if err := s.compareFiles(ctx); err != nil {
		return err
	}
	if s.image != nil {
		return s.compareImage(ctx)
	}
	return nil
}

func (s *show) report(ctx context.Context) error {
	st, err := s.cluster.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	s.plain("")
	for _, r := range s.reports {
		s.plain("  %s", r)
	}
	s.plain("")
	return s.writeEnv(st)
}

// env is the file of shell assignments: name and value.
func (s *show) env(st api.Status) [][2]string {
	url := func(portal string) string {
		return fmt.Sprintf("iscsi://%s/%s/%d", portal, s.lun.Target, s.lun.Number)
	}
	leader := max(s.cluster.Index(st.Leader), 0)
	var pids []string
	vars := [][2]string{{"LUN_URL", url(s.cluster.Virtual)}}
	for i, n := range s.cluster.Nodes {
		vars = append(vars, [2]string{fmt.Sprintf("LUN_URL_%d", i+1), url(n.Config.Address.Portal)})
		pids = append(pids, fmt.Sprint(n.PID()))
	}
	return append(vars,
		[2]string{"SHARE_URL", s.server.URL("/" + share)},
		[2]string{"API_URL", "https://" + s.cluster.Nodes[leader].Config.Address.API},
		[2]string{"TOKEN_FILE", s.cluster.TokenFile()},
		[2]string{"LEADER_PID", fmt.Sprint(s.cluster.Nodes[leader].PID())},
		[2]string{"PIDS", strings.Join(pids, " ")})
}

func (s *show) writeEnv(st api.Status) error {
	var b strings.Builder
	for _, v := range s.env(st) {
		fmt.Fprintf(&b, "%s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	path := filepath.Join(s.cfg.Dir, "env")
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing the addresses: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the addresses: %w", err)
	}
	return nil
}

// linger leaves the cluster to the user until ctx ends; env follows the leader.
func (s *show) linger(ctx context.Context) error {
	s.disk.Close()
	s.files.client.Close()
	v := map[string]string{}
	st, err := s.cluster.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	for _, e := range s.env(st) {
		v[e[0]] = e[1]
	}
	host, port, _ := strings.Cut(s.cluster.Virtual, ":")
	s.plain("The cluster goes on until Ctrl-C. The addresses are in %s; try, in another terminal:\n", filepath.Join(s.cfg.Dir, "env"))
	s.plain("  . %s", filepath.Join(s.cfg.Dir, "env"))
	s.plain("  export PMSAPP_API=%s PMSAPP_TOKEN_FILE=%s", v["API_URL"], v["TOKEN_FILE"])
	for _, c := range []string{"status", "volume show " + volume, "event list", "hand-over"} {
		s.plain("  %s %s", s.cfg.Binary, c)
	}
	s.plain("  qemu-img info %s", v["LUN_URL"])
	s.plain("  qemu-img convert -n -O raw disk.qcow2 %s", v["LUN_URL"])
	s.plain("  iscsiadm -m discovery -t sendtargets -p %s:%s", host, port)
	s.plain("  iscsiadm -m node -T %s -p %s:%s --login", s.lun.Target, host, port)
	s.plain("  nfs-ls '%s'", v["SHARE_URL"])
	s.plain("  %s", s.server.MountCommand("/"+share))
	s.plain("  kill -9 $LEADER_PID      # and look at status again\n")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	leader := st.Leader
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		st, err := s.cluster.Client().Status(ctx, false)
		if err != nil || st.Leader == leader || st.Leader == "" {
			continue
		}
		leader = st.Leader
		s.say("%s leads now, in epoch %d", st.Leader, st.Epoch)
		if err := s.writeEnv(st); err != nil {
			return err
		}
	}
}

// resynced finds in the event log what the resync copied: it may have ended between two looks at the status.
func (s *show) resynced(ctx context.Context) (most int64) {
	events, err := s.cluster.Client().Events(ctx, 0, 1000)
	if err != nil {
		return 0
	}
	for _, e := range events {
		var n int64
		if e.Kind == "resync-done" {
			if at := strings.Index(e.Text, "copied "); at >= 0 {
				fmt.Sscanf(e.Text[at:], "copied %d", &n)
			}
		}
		most = max(most, n)
	}
	return most
}

var _ disk = (*initiator.Disk)(nil)
