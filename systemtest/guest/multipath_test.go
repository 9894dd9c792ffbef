package guest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
)

var failovers = flag.Int("failovers", 3, "how many leaders die under the guests' load")

// documented is the /etc/multipath.conf that docs/OPERATIONS.md gives: what is tested is what users are told.
func documented(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "\n    defaults {\n")
	text, _, ends := strings.Cut(text, "\n    }\n\n")
	if !found || !ends {
		t.Fatal("docs/OPERATIONS.md has no multipath.conf")
	}
	return "defaults {\n" + text + "\n}\n"
}

// TestGuestMultipath: a Linux host with a path to each node and no virtual address, two file systems under load, while leaders die. The host
// sees one active group of paths, waits a few seconds, and goes on: no error, no file system read-only, none damaged.
func TestGuestMultipath(t *testing.T) {
	img, yes := outside(t)
	if yes {
		return
	}
	newBridge(t)
	c := newCluster(t, false)
	systems := []string{"ext4", "xfs"}
	for _, v := range systems {
		if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: v, Size: 512 << 20, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: v, Paths: "nodes"}); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t, img, 1)
	m.multipath(len(systems))
	for _, v := range systems {
		dev := m.deviceOf(v)
		m.run(time.Minute, "mkfs.%s -q %s && mkdir /mnt/%[1]s && mount %[2]s /mnt/%[1]s", v, dev)
	}
	m.onePathActive(c.whole().Leader, len(systems))
	var loads []*load
	for i, v := range systems {
		loads = append(loads, m.start("blocks-"+v, "blocks -dir /mnt/%s -workers 3 -seed %d", v, i+1), m.start("churn-"+v, "churn -dir /mnt/%s -workers 1 -seed %d", v, i+1))
	}
	fio := m.fio("/mnt/ext4")
	var stalls []time.Duration
	for round := range *failovers {
		how := fault(round) % faults
		began, back := c.kill(how)
		goOn(t, loads, began)
		back()
		m.onePathActive(c.whole().Leader, len(systems))
		stalls = append(stalls, standstill(loads, began))
		t.Logf("failover %d, %v: the host stood still for %v", round+1, how, stalls[round].Round(10*time.Millisecond))
	}
	for _, l := range loads {
		t.Log(l.what, l.stop())
	}
	if err := <-fio; err != nil {
		t.Fatal(err)
	}
	t.Log(summary(stalls))
	m.noErrors()
	m.run(time.Minute, "cd / && umount /mnt/ext4 /mnt/xfs")
	m.run(time.Minute, "e2fsck -fn %s && xfs_repair -n %s", m.deviceOf("ext4"), m.deviceOf("xfs"))
}

// multipath sets the initiator up, logs in at every portal that a node names, and waits for the maps.
func (m *machine) multipath(volumes int) {
	m.t.Helper()
	m.run(time.Minute, `cat >/etc/multipath.conf <<'X'
%sX
sed -i -e 's/^node.conn\[0\].timeo.noop_out_interval.*/node.conn[0].timeo.noop_out_interval = 2/' \
	-e 's/^node.conn\[0\].timeo.noop_out_timeout.*/node.conn[0].timeo.noop_out_timeout = 2/' /etc/iscsi/iscsid.conf
modprobe -a iscsi_tcp dm-multipath sd_mod
multipathd
iscsid`, documented(m.t))
	m.run(time.Minute, "iscsiadm -m discovery -t sendtargets -p %s -l", nodeAddress(0))
	m.wait("the maps", time.Minute, fmt.Sprintf("test $(multipathd show paths raw format '%%m' | grep -c mpath) = %d", 3*volumes))
}

// deviceOf is the map with the paths to a volume's target.
func (m *machine) deviceOf(volume string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run(time.Minute, `for s in /sys/class/iscsi_session/session*; do
	[ "$(cat $s/targetname)" = %s ] || continue
	d=$(ls $s/device/target*/*/block)
	echo /dev/mapper/$(multipathd show paths raw format '%%d %%m' | awk -v d=$d '$1 == d { print $2 }')
	break
done`, front.TargetName(volume)))
}

// onePathActive waits until each map has one active path, that to the leader, and the others stand by.
func (m *machine) onePathActive(leader string, volumes int) {
	m.t.Helper()
	m.wait("one active path to "+leader, time.Minute, fmt.Sprintf(`multipathd show paths raw format '%%p %%T %%t' | sort | uniq -c >/tmp/paths
test "$(awk '$2 == 50 && $3 == "ready" && $4 == "active" { print $1 }' /tmp/paths)" = %d &&
test "$(awk '$2 == 1 && $3 == "ghost" && $4 == "active" { print $1 }' /tmp/paths)" = %d`, volumes, 2*volumes))
}

// noErrors proves by the kernel's log, and by what is mounted, that no error reached a file system.
func (m *machine) noErrors() {
	m.t.Helper()
	m.run(time.Minute, `! dmesg | grep -E 'Buffer I/O error|I/O error, dev dm-|EXT4-fs (error|warning)|XFS .*(error|[Ss]hut|[Cc]orrupt)|Remounting|Aborting journal|hung_task|blocked for more'
! grep -E '^/dev/mapper/[^ ]* [^ ]* [^ ]* ro' /proc/mounts`)
}
