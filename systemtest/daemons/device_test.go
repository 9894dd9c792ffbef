package daemons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	buffers "pmsapp/internal/block"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/loop"
	"pmsapp/systemtest/program"
)

// onDevices starts a cluster whose pools are block devices.
func onDevices(t *testing.T, sizes ...int64) (*local.Cluster, []*loop.Device) {
	t.Helper()
	dir := t.TempDir()
	var devices []*loop.Device
	for i, size := range sizes {
		devices = append(devices, device(t, dir, dir, i, size))
	}
	c := program.Cluster(t, local.Config{Nodes: len(sizes), Dir: filepath.Join(dir, "cluster"), Change: func(i int, cfg *config.Config) {
		cfg.Pools = []string{devices[i].Path}
	}})
	return c, devices
}

func device(t *testing.T, dir, images string, i int, size int64) *loop.Device {
	t.Helper()
	name := fmt.Sprintf("disk%d", i+1)
	return loop.New(t, filepath.Join(dir, name), filepath.Join(images, name+".image"), size)
}

// poolOf is what a node says of its pool.
func poolOf(s api.Status, node string) api.Pool {
	for _, n := range s.Nodes {
		if n.Name == node && len(n.Pools) == 1 {
			return n.Pools[0]
		}
	}
	return api.Pool{}
}

// TestDevicePool does with volumes on block devices what is done with those in directories: writes and UNMAP, also past what a pool has,
// over-subscription, a scrub that mends, growth, the trash, and moving away.
func TestDevicePool(t *testing.T) {
	c, devices := onDevices(t, 224<<20, 96<<20, 224<<20)
	cl, ctx := c.Client(), t.Context()
	if _, err := cl.CreateVolume(ctx, api.NewVolume{Name: "v", Size: 256 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}}); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "volumes.over_subscription") {
		t.Fatalf("more than twice of a device is promised: %v", err)
	}
	d := export(t, c, api.NewVolume{Size: 160 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}})
	settled(t, c)
	fillDevice(t, c, d, devices)
	mendsOnDevice(t, c, d, devices[1])

	if _, err := cl.ResizeVolume(ctx, "v", api.NewSize{Size: 170 << 20}); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = login(t, c)
	if size := d.Geometry().Size; size != 170<<20 {
		t.Fatalf("it was made larger, and has %d bytes", size)
	}
	if err := d.WriteAt(ctx, pattern(4096, 9), 170<<20-4096); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := cl.Unexport(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if err := cl.DeleteVolume(ctx, "v", false); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.RestoreVolume(ctx, "v", api.Restore{}); err != nil {
		t.Fatal(err)
	}
	if err := cl.Drain(ctx, "node2", api.Drain{Pool: devices[1].Path}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "node2's device to be empty", func(s api.Status) bool {
		v := s.Volumes[0]
		p := poolOf(s, "node2")
		return v.Served && len(v.Replicas) == 2 && synced(s) == 2 && !slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return r.Node == "node2" }) &&
			p.State == "ok" && p.Free > p.Size*95/100
	})
	if _, err := cl.Export(ctx, api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	d = login(t, c)
	check(t, d, 170<<20-4096, 4096, 9)
	check(t, d, 20<<20, 1<<20, 21)
	check(t, d, 0, 1<<20, 0)
	d.Close()
	if err := cl.Unexport(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if err := cl.DeleteVolume(ctx, "v", true); err != nil {
		t.Fatal(err)
	}
	if err := local.Wait(ctx, "the devices to be empty", 30*time.Second, func(ctx context.Context) (bool, error) {
		s, err := cl.Status(ctx, false)
		for _, n := range []string{"node1", "node3"} {
			if p := poolOf(s, n); p.Size == 0 || p.Free < p.Size*95/100 {
				return false, err
			}
		}
		return devices[0].Used() < 48<<20, err // what was in use was discarded, but for what is kept ready
	}); err != nil {
		t.Fatalf("%v: %d MiB of the image are in use", err, devices[0].Used()>>20)
	}
}

// fillDevice writes until a pool is full, and makes room again: the last writes that succeeded are there, and UNMAP gives space back to whoever
// has made the device.
func fillDevice(t *testing.T, c *local.Cluster, d *initiator.Disk, devices []*loop.Device) {
	t.Helper()
	const chunk = 1 << 20
	full := int64(-1)
	for off := int64(0); off < 160<<20 && full < 0; off += chunk {
		err := d.WriteAt(t.Context(), pattern(chunk, byte(off/chunk+1)), off)
		var refused *initiator.StatusError
		switch {
		case err == nil:
		case errors.As(err, &refused) && refused.Sense.Key == 7 && refused.Sense.ASC == 0x27 && refused.Sense.ASCQ == 7:
			full = off
		default:
			t.Fatalf("writing at %d: %v", off, err)
		}
	}
	if full < 64<<20 {
		t.Fatalf("full at %d", full)
	}
	if st, err := c.Client().Status(t.Context(), false); err != nil || synced(st) != 2 {
		t.Fatalf("a full device removed a member: %+v, %v", st.Volumes, err)
	}
	for off := int64(0); off < full; off += chunk {
		check(t, d, off, chunk, byte(off/chunk+1))
	}
	if err := local.Wait(t.Context(), "an event that says that the pool fills up", 30*time.Second, func(ctx context.Context) (bool, error) {
		events, err := c.Client().Events(ctx, 0, 100)
		return slices.ContainsFunc(events, func(e api.Event) bool { return e.Kind == "pool-filling" && e.Node == "node2" }), err
	}); err != nil {
		t.Fatal(err)
	}
	before := devices[1].Used()
	if err := d.Zero(t.Context(), 0, 20<<20); err != nil {
		t.Fatal(err)
	}
	if err := local.Wait(t.Context(), "the space to be given back", 20*time.Second, func(context.Context) (bool, error) {
		return devices[1].Used() < before-10<<20, nil // some of it is made ready for the next writes
	}); err != nil {
		t.Errorf("%v: the image took %d MiB and takes %d", err, before>>20, devices[1].Used()>>20)
	}
	if err := d.WriteAt(t.Context(), pattern(chunk, 0xee), full); err != nil {
		t.Fatal("writing after space was freed:", err)
	}
	check(t, d, 0, 20<<20, 0)
	check(t, d, full, chunk, 0xee)
	if err := d.Zero(t.Context(), full, chunk); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
}

// mendsOnDevice flips a bit of a block, past the program, and has it mended by a scrub.
func mendsOnDevice(t *testing.T, c *local.Cluster, d *initiator.Disk, dev *loop.Device) {
	t.Helper()
	mark := bytes.Repeat([]byte("a block that is only once on this device, for the scrub test....")[:64], 64)
	if err := d.WriteAt(t.Context(), mark, 30<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dev.Path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := os.Stat(dev.Image)
	if err != nil {
		t.Fatal(err)
	}
	b, at := buffers.Get(1<<20), int64(-1)
	defer buffers.Put(b)
	for off := int64(0); off < info.Size() && at < 0; off += int64(len(b)) {
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, mark); i >= 0 {
			at = off + int64(i)
		}
	}
	if at < 0 || at%4096 != 0 {
		t.Fatalf("the block was found at %d", at)
	}
	one := buffers.Get(4096)
	defer buffers.Put(one)
	copy(one, mark)
	one[1234] ^= 4
	if _, err := f.WriteAt(one, at); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Scrub(t.Context(), "v", api.NewScrub{Rate: 10000}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "the scrub to mend the block", func(s api.Status) bool {
		x := s.Volumes[0].Scrub
		return x != nil && x.Last != nil && x.Last.Mended == 4096 && x.Last.Unreadable == 0 && x.Last.Differing == 0
	})
	if _, err := f.ReadAt(one, at); err != nil || !bytes.Equal(one, mark) {
		t.Fatalf("the block is still damaged: %v", err)
	}
}

// shutDown has a file system fail everything from now on (EXT4_IOC_SHUTDOWN, without its log), and with it the devices over its files.
func shutDown(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), 0x8004587d, 2); err != nil {
		t.Skipf("this machine's ext4 cannot be shut down: %v", err)
	}
}

// TestDeviceVanishes: the device of a pool fails for good, once a follower's and once the leader's own, and its node goes on. Hosts see no
// error; the pool says what has become of it; a node whose device is not there starts without it, and has it back when it comes.
func TestDeviceVanishes(t *testing.T) {
	for _, who := range []string{"a follower", "the leader"} {
		t.Run(who, func(t *testing.T) { vanishes(t, who == "the leader") })
	}
}

func vanishes(t *testing.T, leads bool) {
	dir := t.TempDir()
	host := mount(t, dir, "host", "256M")
	devices := []*loop.Device{device(t, dir, dir, 0, 128<<20), device(t, dir, dir, 1, 128<<20), device(t, dir, host, 2, 128<<20)}
	c := program.Cluster(t, local.Config{Nodes: 3, Dir: filepath.Join(dir, "cluster"), Change: func(i int, cfg *config.Config) { cfg.Pools = []string{devices[i].Path} }})
	// A node is a member before the leader has fenced its pools, by the time of some flushes.
	if err := local.Wait(t.Context(), "the pools to be reachable", 20*time.Second, func(ctx context.Context) (bool, error) {
		_, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 3})
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	d := login(t, c)
	to := "node1"
	if leads {
		to = "node3"
	}
	if st := settled(t, c); st.Leader != to {
		if err := c.Client().Transfer(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		expect(t, c, to+" to lead", func(s api.Status) bool { return s.Leader == to && s.Volumes[0].Served })
	}
	var stop = make(chan struct{})
	ended := make(chan error, 1)
	writes := 0
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				writes = i
				ended <- nil
				return
			default:
			}
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			err := d.WriteAt(ctx, pattern(4096, byte(i)), int64(i%16000)*4096)
			if err == nil && i > 0 {
				b := make([]byte, 4096)
				if err = d.ReadAt(ctx, b, int64((i-1)%16000)*4096); err == nil && b[0] != byte(i-1) {
					err = errors.New("it reads as something else")
				}
			}
			cancel()
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	pauseFor(t, time.Second)
	shutDown(t, host)
	expect(t, c, "node3's replica to be out of sync, and its pool to say why", func(s api.Status) bool {
		return s.Leader != "" && s.Volumes[0].Served && synced(s) == 2 && strings.Contains(poolOf(s, "node3").State, "input/output error")
	})
	pauseFor(t, 2*time.Second)
	node3 := c.Index("node3")
	if err := c.Kill(node3); err != nil { // nobody gives a device up that is open
		t.Fatal(err)
	}
	devices[2].Detach()
	if err := c.Start(node3); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "node3 to be there without its pool", func(s api.Status) bool {
		p := poolOf(s, "node3")
		return s.Leader != "" && s.Volumes[0].Served && p.State != "" && p.State != "ok" && p.Size < 0
	})
	again := exec.Command("sh", "-c", "umount "+host+" && mount -o loop "+host+".image "+host)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	devices[2].Attach()
	settled(t, c)
	close(stop)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes", writes)
	if _, err := c.Client().Scrub(t.Context(), "v", api.NewScrub{Rate: 10000}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "the scrub to find nothing", func(s api.Status) bool {
		x := s.Volumes[0].Scrub
		return x != nil && x.Last != nil && x.Last.Mended+x.Last.Unreadable+x.Last.Differing == 0
	})
}

func pauseFor(t *testing.T, d time.Duration) {
	t.Helper()
	if err := pause(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}
