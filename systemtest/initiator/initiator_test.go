// Package initiator tests our initiator against targets: Debian's tgtd, and our own.
package initiator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/lunserver"
	"pmsapp/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(portal, name string) initiator.DiskConfig {
	return initiator.DiskConfig{Portals: []string{portal}, Initiator: "iqn.2026-11.app.pmsapp:client", Target: name, LUN: 1,
		Wish: iscsi.DefaultWish(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// variants are the sets of parameters that every target is tested with.
var variants = []struct {
	name string
	edit func(*initiator.DiskConfig)
}{
	{"default", func(c *initiator.DiskConfig) {}},
	{"solicited", func(c *initiator.DiskConfig) { c.Wish.InitialR2T, c.Wish.ImmediateData = true, false }},
	{"small", func(c *initiator.DiskConfig) {
		c.Wish.MaxRecv, c.Wish.MaxBurst, c.Wish.FirstBurst, c.Wish.MaxR2T = 4096, 32768, 8192, 2
	}},
	{"digests", func(c *initiator.DiskConfig) { // the last: tgtd has to be told first
		c.Wish.HeaderDigest, c.Wish.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways
	}},
}

// exercise writes and reads with many goroutines, each in a part of its own, and compares.
func exercise(t *testing.T, cfg initiator.DiskConfig) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d, err := initiator.OpenDisk(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if g := d.Geometry(); g.Size != 64<<20 || g.Block != 512 {
		t.Fatal(g)
	}
	if inq, err := d.Inquiry(t.Context(), false, 0); err != nil || len(inq) < 36 {
		t.Fatal(inq, err)
	}
	const workers, part = 24, 2 << 20
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			model, got := make([]byte, part), make([]byte, part)
			if err := errors.Join(d.Zero(t.Context(), int64(w)*part, part), d.ReadAt(t.Context(), got, int64(w)*part)); err != nil || !bytes.Equal(got, model) {
				t.Errorf("zero: %v", err)
				return
			}
			for i := range 40 {
				n := 512 * (1 + rnd.IntN([]int{8, 100, 1500}[i%3]))
				off := 512 * rnd.IntN((part-n)/512+1)
				for j := off; j < off+n; j += 8 {
					binary.LittleEndian.PutUint64(model[j:], rnd.Uint64())
				}
				at := int64(w*part + off)
				if err := errors.Join(d.WriteAt(t.Context(), model[off:off+n], at), d.ReadAt(t.Context(), got[:n], at)); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(got[:n], model[off:off+n]) {
					t.Errorf("%d bytes at %d differ", n, at)
					return
				}
			}
			if err := errors.Join(d.Flush(t.Context()), d.ReadAt(t.Context(), got, int64(w)*part)); err != nil || !bytes.Equal(got, model) {
				t.Errorf("whole part: %v", err)
			}
		})
	}
	all.Wait()
}

func discovers(t *testing.T, portal, name string) {
	t.Helper()
	found, err := initiator.Discover(t.Context(), initiator.Config{Portal: portal, Initiator: "iqn.2026-11.app.pmsapp:client"})
	if err != nil || len(found) != 1 || found[0].Name != name || len(found[0].Portals) == 0 || found[0].Portals[0].Addr != portal {
		t.Errorf("discovery: %+v %v", found, err)
	}
}

func TestTgtd(t *testing.T) {
	portal, admin := startTgtd(t)
	discovers(t, portal, tgtdName)
	t.Run("sessions", func(t *testing.T) { sessions(t, portal, tgtdName, false) })
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			cfg := config(portal, tgtdName)
			v.edit(&cfg)
			if cfg.Wish.HeaderDigest == iscsi.DigestAlways {
				for _, name := range []string{"HeaderDigest", "DataDigest"} {
					admin("--mode", "target", "--op", "update", "--tid", "1", "--name", name, "--value", "CRC32C")
				}
			}
			exercise(t, cfg)
		})
	}
}

func TestTgtdCHAP(t *testing.T) {
	portal, admin := startTgtd(t)
	admin("--mode", "account", "--op", "new", "--user", "host", "--password", "secretsecret12")
	admin("--mode", "account", "--op", "bind", "--tid", "1", "--user", "host")
	cfg := config(portal, tgtdName)
	cfg.Own = iscsi.Credentials{Name: "host", Secret: []byte("secretsecret12")}
	exercise(t, cfg)
	for _, own := range []iscsi.Credentials{{}, {Name: "host", Secret: []byte("wrong")}} {
		_, err := initiator.Dial(t.Context(), initiator.Config{Portal: portal, Initiator: "iqn.2026-11.app.pmsapp:client",
			Target: tgtdName, Own: own})
		if !errors.Is(err, initiator.ErrLoginRefused) {
			t.Error(err)
		}
	}
}

func TestOurs(t *testing.T) {
	s := lunserver.Start(t, blocktest.NewMemory(64<<20, 512))
	discovers(t, s.Addr.String(), lunserver.Name)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			cfg := config(s.Addr.String(), lunserver.Name)
			v.edit(&cfg)
			exercise(t, cfg)
		})
	}
	t.Run("sessions", func(t *testing.T) { sessions(t, s.Addr.String(), lunserver.Name, true) })
}

func TestOursCHAP(t *testing.T) {
	host := iscsi.Credentials{Name: "host", Secret: []byte("secret of the host")}
	array := iscsi.Credentials{Name: "array", Secret: []byte("secret of the array")}
	s := lunserver.Start(t, blocktest.NewMemory(64<<20, 512))
	s.Auth = iscsi.Auth{Initiator: host, Own: array}
	cfg := config(s.Addr.String(), lunserver.Name)
	cfg.Own, cfg.Peer = host, array
	exercise(t, cfg)
	for _, c := range []struct {
		own, peer iscsi.Credentials
		want      error
	}{
		{want: initiator.ErrLoginRefused},
		{own: iscsi.Credentials{Name: "host", Secret: []byte("wrong")}, want: initiator.ErrLoginRefused},
		{own: host, peer: iscsi.Credentials{Name: "array", Secret: []byte("wrong")}, want: initiator.ErrAuth},
	} {
		_, err := initiator.Dial(t.Context(), initiator.Config{Portal: s.Addr.String(), Initiator: "iqn.2026-11.app.pmsapp:client",
			Target: lunserver.Name, Own: c.own, Peer: c.peer})
		if !errors.Is(err, c.want) {
			t.Error(err)
		}
	}
}

// TestOursProbes has our target probe an idle initiator, and our initiator an idle target.
func TestOursProbes(t *testing.T) {
	s := lunserver.Start(t, blocktest.NewMemory(64<<20, 512), func(c *target.Config) {
		c.Tunables = target.DefaultTunables()
		c.NoopInterval, c.NoopTimeout = 20*time.Millisecond, time.Second
	})
	cfg := initiator.Config{Portal: s.Addr.String(), Initiator: "iqn.2026-11.app.pmsapp:client", Target: lunserver.Name,
		Timeouts: initiator.HostTimeouts()}
	cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 30*time.Millisecond, time.Second
	a, err := initiator.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Logout(t.Context())
	select {
	case <-a.Done():
		t.Error(a.Err())
	case <-time.After(300 * time.Millisecond): // a dozen probes each way
	}
}

// sessions resets, logs out, and is reinstated. drops says that the target closes the connection of a session that is
// reinstated; tgtd leaves it open, without answers.
func sessions(t *testing.T, portal, name string, drops bool) {
	cfg := initiator.Config{Portal: portal, Initiator: "iqn.2026-11.app.pmsapp:client", Target: name,
		ISID: iscsi.ISID{0x80, 1, 2, 3, 4, 5}}
	first, err := initiator.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, first)
	if err := first.LUReset(t.Context(), initiator.LUN(1)); err != nil {
		t.Error("reset:", err)
	}
	ready(t, first)
	second, err := initiator.Dial(t.Context(), cfg) // the same port: it takes the place of the first
	if err != nil {
		t.Fatal(err)
	}
	if !drops {
		first.Close()
	}
	<-first.Done()
	ready(t, second)
	second.Logout(t.Context())
	if err := second.Err(); !errors.Is(err, initiator.ErrClosed) {
		t.Error("logout:", err)
	}
}

// ready takes away unit attentions by TEST UNIT READY.
func ready(t *testing.T, s *initiator.Session) {
	t.Helper()
	for range 10 {
		ended := make(chan struct{})
		c := &initiator.Command{LUN: initiator.LUN(1), CDB: make([]byte, 6), Done: func(*initiator.Command) { close(ended) }}
		s.Submit(c)
		<-ended
		if c.Err == nil && c.Status == initiator.StatusGood {
			return
		}
		if c.Err != nil || initiator.ParseSense(c.Sense).Key != initiator.KeyUnitAttention {
			t.Fatal(c.Err, c.Status, fmt.Sprintf("%x", c.Sense))
		}
	}
	t.Fatal("unit attentions without end")
}
