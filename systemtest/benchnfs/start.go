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
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfsclient"
	"pmsapp/systemtest/bench/measure"
)

// startOurs starts three nodes of the i-th program and makes a share with two replicas, one of them at the leader.
func startOurs(ctx context.Context, program string, i int, dir string) (*side, error) {
	bin, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	first := 1 + 16*i // the clusters have addresses of their own
	ports := make([]string, 3)
	for i := range ports {
		if ports[i], err = freePort(fmt.Sprintf("127.0.0.%d", first+i)); err != nil {
			return nil, err
		}
	}
	c, err := local.New(local.Config{Binary: bin, Dir: dir, Nodes: 3, Log: slog.New(slog.DiscardHandler),
		Change: func(i int, c *config.Config) { c.Address.NFS = ports[i] }})
	if err != nil {
		return nil, err
	}
	s := &side{name: "pmsapp, 2 replicas", stop: c.Close}
	if i > 0 {
		s.name = fmt.Sprint("beside ", i)
	}
	if err := s.makeShare(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (s *side) makeShare(ctx context.Context, c *local.Cluster) error {
	if err := c.Form(ctx); err != nil {
		return err
	}
	st, err := c.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	on := []string{st.Leader}
	for _, x := range st.Nodes {
		if x.Name != st.Leader {
			on = append(on, x.Name)
		}
	}
	for i, name := range []string{"leader", "follower", "third"} {
		s.procs = append(s.procs, measure.Proc{Name: name, PID: c.Nodes[c.Index(on[i])].PID()})
	}
	if _, err := c.Client().CreateShare(ctx, api.NewVolume{Name: "bench", Size: 16 * *size, Replicas: 2, Nodes: on[:2]}); err != nil {
		return err
	}
	x, err := c.Client().ExportShare(ctx, "bench", api.ShareRule{Client: "127.0.0.0/8", Squash: "none"})
	if err != nil {
		return err
	}
	leader := c.Nodes[c.Index(st.Leader)].Config.Address.NFS
	return s.mount(ctx, leader, leader, x.Path)
}

// mount connects; portal is the address of NFS, mounter of MOUNT.
func (s *side) mount(ctx context.Context, portal, mounter, path string) error {
	s.client = nfsclient.New(nfsclient.Dial(portal))
	m := s.client
	if mounter != portal {
		m = nfsclient.New(nfsclient.Dial(mounter))
		defer m.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var err error
	s.root, _, err = m.Mount(ctx, path)
	return err
}

func freePort(ip string) (string, error) {
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

const ganesha = `NFS_CORE_PARAM { Protocols = 3; Bind_addr = 127.0.0.9; NFS_Port = %s; MNT_Port = %s;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; fsid_device = false; }
EXPORT_DEFAULTS { Access_Type = RW; Squash = No_Root_Squash; SecType = sys, none; Transports = TCP; Protocols = 3; }
EXPORT { Export_Id = 77; Path = %s; Pseudo = /export; MaxRead = 1048576; MaxWrite = 1048576; PrefRead = 1048576; PrefWrite = 1048576;
  FSAL { Name = VFS; } }
LOG { Default_Log_Level = EVENT; }
`

// ganeshaScript starts an rpcbind, without which ganesha does not start, on a Unix socket of a mount namespace of their own, so that
// it listens on no address; then it becomes ganesha.
const ganeshaScript = `set -e
mount -t tmpfs none /run; mkdir -p /run/rpcbind /run/ganesha
printf 'local tpi_cots_ord - loopback - - -\n' >/run/netconfig.local
mount --bind /run/netconfig.local /etc/netconfig
rpcbind -f & echo $! >"$1/rpcbind.pid"
for i in $(seq 50); do [ -S /run/rpcbind.sock ] && break; sleep 0.1; done
umount /etc/netconfig
exec ganesha.nfsd -F -f "$1/ganesha.conf" -L "$1/ganesha.log" -p "$1/nfsd.pid" -N NIV_EVENT`

// startGanesha starts nfs-ganesha with one export.
func startGanesha(ctx context.Context, dir string) (*side, error) {
	export, state := filepath.Join(dir, "export"), filepath.Join(dir, "ganesha")
	if err := errors.Join(os.MkdirAll(export, 0o755), os.MkdirAll(state, 0o755)); err != nil {
		return nil, err
	}
	portal, err1 := freePort("127.0.0.9")
	mounter, err2 := freePort("127.0.0.9")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(portal)
	_, mount, _ := net.SplitHostPort(mounter)
	if err := os.WriteFile(filepath.Join(state, "ganesha.conf"), fmt.Appendf(nil, ganesha, port, mount, export), 0o600); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	daemon := exec.Command("unshare", "-m", "--propagation", "private", "bash", "-c", ganeshaScript, "ganesha", state)
	daemon.Stdout, daemon.Stderr = &out, &out
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return nil, err
	}
	s := &side{name: "ganesha", procs: []measure.Proc{{Name: "ganesha", PID: daemon.Process.Pid}}}
	s.stop = func() {
		daemon.Process.Kill()
		if b, err := os.ReadFile(filepath.Join(state, "rpcbind.pid")); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		daemon.Wait()
	}
	err := waitFor(ctx, portal, mounter)
	if err == nil {
		err = s.mount(ctx, portal, mounter, export)
	}
	if err != nil {
		s.stop()
		log, _ := os.ReadFile(filepath.Join(state, "ganesha.log"))
		return nil, fmt.Errorf("%w (Debian packages nfs-ganesha nfs-ganesha-vfs rpcbind): %s%s", err, out.Bytes(), log)
	}
	return s, nil
}

// waitFor waits until something listens on all addresses.
func waitFor(ctx context.Context, addresses ...string) error {
	var err error
	for range 300 {
		for _, a := range addresses {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", a, time.Second); err != nil {
				break
			}
			c.Close()
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
