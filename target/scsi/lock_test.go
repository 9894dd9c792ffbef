package scsi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// failover has another leader serve what the device holds; the session is a new one of the same initiator port.
func (r *rig) failover() {
	r.t.Helper()
	r.lu.Standby()
	r.keeper.Epoch++
	if err := r.lu.Serve(r.dev, r.keeper); err != nil {
		r.t.Fatal(err)
	}
	r.nexus.End(nil)
	r.nexus = r.target.Nexus(target.Login{})
	r.attention(0x2900)
}

// TestOutcomeSurvives: a command whose answer was lost with its leader gets the same answer from the next; anybody else, and
// any other command, gets the real comparison; and so does the same command once more (invariant 18).
func TestOutcomeSurvives(t *testing.T) {
	r := newRig(t)
	zero, one, two := make([]byte, 512), fill(512, 1), fill(512, 2)
	take := append(bytes.Clone(zero), one...)
	r.good(r.do(caw(3, 1), take, 0)) // and nobody acknowledges the answer
	if len(r.keeper.Kept) != 1 {
		t.Fatalf("%d outcomes are kept", len(r.keeper.Kept))
	}
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00) // under the same epoch it is another command
	r.failover()
	other := *r
	other.nexus = r.target.Nexus(target.Login{Initiator: "iqn.other"})
	other.attention(0x2900)
	other.sense(other.do(caw(3, 1), take, 0), 0xe, 0x1d00)
	r.sense(r.do(caw(3, 1), append(bytes.Clone(zero), two...), 0), 0xe, 0x1d00)
	r.sense(r.do(caw(4, 1), append(bytes.Clone(one), one...), 0), 0xe, 0x1d00)
	writes := r.dev.Writes()
	w := r.do(caw(3, 1), take, 0)
	r.good(w)
	if r.dev.Writes() != writes {
		t.Error("what was done before was done again")
	}
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00) // it was told
	// That answer may be lost too.
	r.failover()
	r.good(r.do(caw(3, 1), take, 0))
	// Who has the answer needs no record any more.
	r.failover()
	w = r.do(caw(3, 1), take, 0)
	r.good(w)
	w.Delivered()
	if len(r.keeper.Kept) != 0 {
		t.Error("what was delivered is remembered")
	}
	r.failover()
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00)
}

// TestOutcomeGivesWay: another winner takes the place of what is remembered: two never both win.
func TestOutcomeGivesWay(t *testing.T) {
	r := newRig(t)
	zero, one := make([]byte, 512), fill(512, 1)
	take, free := append(bytes.Clone(zero), one...), append(bytes.Clone(one), zero...)
	r.good(r.do(caw(3, 1), take, 0))
	r.failover()
	other := *r
	other.nexus = r.target.Nexus(target.Login{Initiator: "iqn.other"})
	other.attention(0x2900)
	other.good(other.do(caw(3, 1), free, 0))
	other.good(other.do(caw(3, 1), take, 0)) // the same bytes as the first had written
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00)
	r.failover()
	r.sense(r.do(caw(3, 1), take, 0), 0xe, 0x1d00)
}

// TestRecordWithoutWrite: a leader that dies between the record and the write leaves a record that says nothing yet: the
// command is carried out when it comes again.
func TestRecordWithoutWrite(t *testing.T) {
	r := newRig(t)
	zero, one := make([]byte, 512), fill(512, 1)
	take := append(bytes.Clone(zero), one...)
	r.keeper.NoteHold = true
	w, ended := r.start(caw(3, 1), take, 0)
	if len(r.keeper.Notes) != 1 || r.dev.Writes() != 0 {
		t.Fatalf("%d notes, %d writes", len(r.keeper.Notes), r.dev.Writes())
	}
	w.Stop() // its session ends with the epoch
	r.keeper.NoteHold = false
	r.keeper.Notes[0](nil)
	<-ended
	if r.dev.Writes() != 0 {
		t.Error("a command that was stopped has written")
	}
	if len(r.keeper.Kept) != 0 {
		t.Error("what was not done is remembered")
	}
	r.failover()
	r.good(r.do(caw(3, 1), take, 0))
	if !bytes.Equal(r.dev.Bytes(3*512, 512), one) {
		t.Error("it was not written")
	}
}

// TestRecordFails: without a certain record nothing is written and nobody is answered.
func TestRecordFails(t *testing.T) {
	r := newRig(t)
	take := append(make([]byte, 512), fill(512, 1)...)
	r.keeper.NoteHold = true
	w, ended := r.start(caw(3, 1), take, 0)
	second, over := r.start(caw(3, 1), take, 0) // waits for the first
	r.keeper.Notes[0](errors.New("the epoch is over"))
	<-ended
	if !errors.Is(w.Drop, block.ErrEnded) || r.dev.Writes() != 0 {
		t.Errorf("dropped for %v, %d writes", w.Drop, r.dev.Writes())
	}
	r.keeper.Notes[1](nil)
	<-over
	r.good(second)
}

// TestWriteBetween: a write that comes between the comparison and the update makes it a miscompare, and the record is taken
// back before that is answered.
func TestWriteBetween(t *testing.T) {
	r := newRig(t)
	take := append(make([]byte, 512), fill(512, 1)...)
	r.keeper.NoteHold = true
	w, ended := r.start(caw(3, 1), take, 0)
	r.good(r.do(rw16(0x8a, 0, 3, 1), fill(512, 9), 0))
	r.keeper.Notes[0](nil)
	select {
	case <-ended:
		t.Fatal("it is answered while its record stands")
	default:
	}
	r.keeper.Notes[1](nil)
	<-ended
	r.sense(w, 0xe, 0x1d00)
	if binary.BigEndian.Uint32(w.Sense[3:]) != 0 || len(r.keeper.Kept) != 0 || r.dev.Bytes(3*512, 1)[0] != 9 {
		t.Errorf("sense %x, %d records", w.Sense, len(r.keeper.Kept))
	}
}

// TestLocksOverlap: commands of the same bytes come one after the other, in their order; others do not wait for them.
func TestLocksOverlap(t *testing.T) {
	r := newRig(t)
	r.keeper.NoteHold = true
	step := func(n byte) []byte { return append(fill(512, n), fill(512, n+1)...) }
	var tasks []*target.Task
	var ends []chan struct{}
	for n := range byte(3) {
		w, ended := r.start(caw(3, 1), step(n), 0)
		tasks, ends = append(tasks, w), append(ends, ended)
	}
	apart, over := r.start(caw(5, 1), step(0), 0)
	for i := 0; i < len(r.keeper.Notes); i++ {
		r.keeper.Notes[i](nil)
	}
	<-over
	r.good(apart)
	for i, w := range tasks {
		<-ends[i]
		r.good(w)
	}
	if r.dev.Bytes(3*512, 1)[0] != 3 {
		t.Error("they were not carried out in their order")
	}
}
