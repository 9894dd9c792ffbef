package nfs_test

import (
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

// nlm makes a call of NLM as somebody and returns its status.
func nlm(t *testing.T, c *nfsclient.Client, file nfs3.Handle, l lockCall) uint32 {
	t.Helper()
	r, err := c.RPC().Call(t.Context(), 100021, 4, l.proc, l.encode(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.String(64)
	return r.Uint32()
}

// TestUnlockOfWhoMayNot: whoever has a lock gives it back, whatever became of the file's owner and mode since, as libvirt changes them
// when a guest stops: the client believes that it is gone, and nobody else can take it away.
func TestUnlockOfWhoMayNot(t *testing.T) {
	d := open(t)
	f := d.file("disk", 0o600, "")
	d.chown(f, 5, 5)
	user, l := d.user(5, 5), lockCall{host: "a", owner: "1", len: 10, exclusive: true}
	l.proc = 2
	if stat := nlm(t, user, f, l); stat != 0 {
		t.Fatal("LOCK:", stat)
	}
	waiting := lockCall{proc: 2, host: "a", owner: "2", len: 10, exclusive: true, block: true}
	if stat := nlm(t, user, f, waiting); stat != 3 {
		t.Fatal("a LOCK that waits:", stat)
	}
	d.chown(f, 0, 0)
	waiting.proc = 3
	if stat := nlm(t, user, f, waiting); stat != 0 {
		t.Error("CANCEL:", stat)
	}
	l.proc = 4
	if stat := nlm(t, user, f, l); stat != 0 {
		t.Error("UNLOCK:", stat)
	}
	if stat, _ := d.lock(f, lockCall{proc: 2, host: "b", len: 10, exclusive: true}); stat != 0 {
		t.Error("another's LOCK of what was unlocked:", stat)
	}
	if l.proc = 2; nlm(t, user, f, l) != 9 {
		t.Error("who may not has locked")
	}
}
