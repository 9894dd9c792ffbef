package front

import (
	"strings"

	"pmsapp/internal/ids"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

// verifyPrefix begins the iSCSI name under which a node looks at what hosts would see at a portal.
const verifyPrefix = targetPrefix + "verify:"

// VerifierName is the name of a node that verifies.
func VerifierName(self ids.Node) string { return verifyPrefix + self.String() }

// verifies tells whether a login is of a node that verifies. Who claims that has to prove it: see Credentials.
func (h *Hosts) verifies(l target.Login) bool {
	return len(h.cfg.Verifier.Initiator.Secret) > 0 && strings.HasPrefix(l.Initiator, verifyPrefix)
}

// openVerifier makes the nexus of a node that verifies: it sees the exported unit as its hosts do, or all units that are mapped, by
// numbers of its own, and can ask who they are and nothing else.
func (h *Hosts) openVerifier(l target.Login) (target.Opened, error) {
	if l.User != h.cfg.Verifier.Initiator.Name {
		return target.Opened{}, target.ErrForbidden
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	luns := map[uint16]*scsi.LU{}
	if h.isCommon(l.Target) {
		for _, u := range h.units {
			luns[uint16(len(luns))] = u.lu
		}
	} else if x := h.find(l.Target); x != nil {
		luns[x.LUN] = x.lu
	} else {
		return target.Opened{}, target.ErrUnavailable
	}
	t := scsi.NewTarget(l.Target, h.cfg.Group)
	if err := t.SetLUNs(luns); err != nil {
		return target.Opened{}, err
	}
	return target.Opened{Nexus: asker{t.Nexus(l)}}, nil
}

// asker is a nexus for commands that tell who a unit is (SPC-4: INQUIRY, REPORT LUNS, REPORT TARGET PORT GROUPS, REQUEST SENSE).
type asker struct{ *scsi.Nexus }

func asks(cdb []byte) bool {
	switch cdb[0] {
	case 0x12, 0xa0, 0x03:
		return true
	}
	return cdb[0] == 0xa3 && cdb[1]&0x1f == 0x0a
}

// Accept implements target.Nexus.
func (a asker) Accept(t *target.Task) target.Want {
	if !asks(t.CDB) {
		return target.Want{}
	}
	return a.Nexus.Accept(t)
}

// Execute implements target.Nexus.
func (a asker) Execute(t *target.Task) {
	if asks(t.CDB) {
		a.Nexus.Execute(t)
		return
	}
	t.Status = 2 // CHECK CONDITION, ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE
	t.Sense = append(t.SenseBuf[:0], 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0)
	t.Done(t)
}

// Manage implements target.Nexus.
func (a asker) Manage(target.Management) (target.Response, []any, func(func(target.Response))) {
	return target.FunctionNotAuthorized, nil, nil
}
