package iscsitest

import (
	"bytes"
	"embed"
	"io/fs"

	"pmsapp/internal/iscsi"
)

//go:embed testdata/sessions/*.bin
var recorded embed.FS

// Sessions are what initiators of others said in whole sessions without digests, from the login on: libiscsi's suite and QEMU, as
// systemtest/libiscsi's TestRecord has recorded them. They are seeds for fuzzing.
func Sessions() (all [][]byte) {
	files, _ := fs.Glob(recorded, "testdata/sessions/*.bin") // the pattern is in order, and so is what was embedded
	for _, f := range files {
		b, _ := recorded.ReadFile(f)
		all = append(all, b)
	}
	return all
}

// PDU is one of a recorded session.
type PDU struct {
	iscsi.BHS
	CDB  []byte // of a SCSI command
	Data []byte
}

// PDUs takes a recorded session apart, as far as it goes.
func PDUs(session []byte) (all []PDU) {
	r := iscsi.NewReader(bytes.NewReader(session))
	r.SetMaxData(1 << 20)
	for {
		h, err := r.Next()
		if err != nil {
			return all
		}
		p := PDU{BHS: *h}
		if h.Opcode() == iscsi.OpSCSICommand {
			p.CDB, _, _ = iscsi.CDB(nil, h, r.AHS())
		}
		p.Data = make([]byte, r.Pending())
		if r.ReadData(p.Data) != nil {
			return all
		}
		all = append(all, p)
	}
}
