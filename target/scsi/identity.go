package scsi

import (
	"strings"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/ids"
)

// Identity is what hosts know a logical unit by. It is taken out of the very bytes that INQUIRY answers.
type Identity struct {
	Volume          ids.Volume
	Vendor, Product string
	Serial          string // VPD page 80h
	NAA             []byte // VPD page 83h, as the T10 designator
	T10             string
}

// Identity returns the LU's.
func (lu *LU) Identity() Identity {
	b := standardInquiry(byte(api.TYPE_DISK))
	i := Identity{Volume: lu.id, Vendor: strings.TrimSpace(string(b[8:16])), Product: strings.TrimSpace(string(b[16:32])), Serial: lu.serial()}
	for d := lu.designators("", 0); len(d) >= 4; d = d[4+int(d[3]):] {
		switch value := d[4 : 4+int(d[3])]; d[1] {
		case gotgt.DESG_NAA:
			i.NAA = value
		case gotgt.DESG_T10:
			i.T10 = string(value)
		}
	}
	return i
}

// serial is the body of VPD page 80h.
func (lu *LU) serial() string { return lu.id.String() }
