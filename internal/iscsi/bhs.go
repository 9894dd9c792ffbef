package iscsi

import "encoding/binary"

// Opcode is the kind of a PDU (RFC 7143, 11.2.1.2).
type Opcode uint8

// The PDUs of an initiator have opcodes below 20h, those of a target from 20h on.
const (
	OpNopOut       Opcode = 0x00
	OpSCSICommand  Opcode = 0x01
	OpTaskReq      Opcode = 0x02
	OpLoginReq     Opcode = 0x03
	OpTextReq      Opcode = 0x04
	OpDataOut      Opcode = 0x05
	OpLogoutReq    Opcode = 0x06
	OpSNACK        Opcode = 0x10
	OpNopIn        Opcode = 0x20
	OpSCSIResponse Opcode = 0x21
	OpTaskResp     Opcode = 0x22
	OpLoginResp    Opcode = 0x23
	OpTextResp     Opcode = 0x24
	OpDataIn       Opcode = 0x25
	OpLogoutResp   Opcode = 0x26
	OpR2T          Opcode = 0x31
	OpAsync        Opcode = 0x32
	OpReject       Opcode = 0x3f
)

func (o Opcode) String() string {
	switch o {
	case OpNopOut:
		return "NOP-Out"
	case OpSCSICommand:
		return "SCSI Command"
	case OpTaskReq:
		return "Task Management Request"
	case OpLoginReq:
		return "Login Request"
	case OpTextReq:
		return "Text Request"
	case OpDataOut:
		return "Data-Out"
	case OpLogoutReq:
		return "Logout Request"
	case OpSNACK:
		return "SNACK"
	case OpNopIn:
		return "NOP-In"
	case OpSCSIResponse:
		return "SCSI Response"
	case OpTaskResp:
		return "Task Management Response"
	case OpLoginResp:
		return "Login Response"
	case OpTextResp:
		return "Text Response"
	case OpDataIn:
		return "Data-In"
	case OpLogoutResp:
		return "Logout Response"
	case OpR2T:
		return "R2T"
	case OpAsync:
		return "Asynchronous Message"
	case OpReject:
		return "Reject"
	}
	return "unknown PDU"
}

const (
	// BHSLen is the length of a basic header segment.
	BHSLen = 48
	// MaxAHS is the longest sequence of additional header segments that the length field can name.
	MaxAHS = 255 * 4
	// MaxDataSegment is the longest data segment that the length field can name.
	MaxDataSegment = 1<<24 - 1
	// LoginMaxData is the longest data segment during login, before MaxRecvDataSegmentLength was declared (13.12).
	LoginMaxData = 8192
	// NoTag is the reserved value of initiator and target task tags.
	NoTag = 0xffffffff
)

// BHS is a basic header segment as it is on the wire. The accessors name the fields; a comment says which PDUs have the
// field, "requests" being those of the initiator and "responses" those of the target. All PDUs have opcode, flags,
// lengths and ITT.
type BHS [BHSLen]byte

// Init clears h and makes it a PDU of the given opcode with the given flags (byte 1).
func (h *BHS) Init(op Opcode, flags byte) {
	*h = BHS{}
	h[0], h[1] = byte(op), flags
}

// Byte 0.

func (h *BHS) Opcode() Opcode  { return Opcode(h[0] & 0x3f) }
func (h *BHS) Immediate() bool { return h[0]&0x40 != 0 }
func (h *BHS) SetImmediate()   { h[0] |= 0x40 }

// Flags in byte 1.
const (
	FlagFinal = 0x80 // F: all PDUs but login, where it is T

	FlagRead  = 0x40 // SCSI Command
	FlagWrite = 0x20 // SCSI Command
	AttrMask  = 0x07 // SCSI Command: task attribute

	FlagContinue = 0x40 // Text Request and Response, Login Request and Response

	FlagTransit = 0x80 // Login
	FlagAck     = 0x40 // Data-In

	FlagBidiOverflow  = 0x10 // SCSI Response
	FlagBidiUnderflow = 0x08 // SCSI Response
	FlagOverflow      = 0x04 // SCSI Response, Data-In
	FlagUnderflow     = 0x02 // SCSI Response, Data-In
	FlagStatus        = 0x01 // Data-In: status is in this PDU
)

// Task attributes.
const (
	AttrUntagged = 0
	AttrSimple   = 1
	AttrOrdered  = 2
	AttrHead     = 3
	AttrACA      = 4
)

func (h *BHS) Flags() byte         { return h[1] }
func (h *BHS) SetFlags(f byte)     { h[1] = f }
func (h *BHS) Has(f byte) bool     { return h[1]&f == f }
func (h *BHS) Final() bool         { return h[1]&FlagFinal != 0 }
func (h *BHS) u32(i int) uint32    { return binary.BigEndian.Uint32(h[i:]) }
func (h *BHS) put(i int, v uint32) { binary.BigEndian.PutUint32(h[i:], v) }

// AHSLen is the length of all additional header segments in bytes.
func (h *BHS) AHSLen() int { return int(h[4]) * 4 }

// DataLen is the length of the data segment without its padding.
func (h *BHS) DataLen() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

// setLengths sets both length fields. Only a Writer does, since the lengths are those of what it sends.
func (h *BHS) setLengths(ahs, data int) {
	h[4], h[5], h[6], h[7] = byte(ahs/4), byte(data>>16), byte(data>>8), byte(data)
}

// LUN is in SCSI Command, Task Management Request, Data-Out, Data-In, R2T, Async, NOP, Text, SNACK.
func (h *BHS) LUN() uint64     { return binary.BigEndian.Uint64(h[8:]) }
func (h *BHS) SetLUN(v uint64) { binary.BigEndian.PutUint64(h[8:], v) }

// ITT is the initiator task tag.
func (h *BHS) ITT() uint32     { return h.u32(16) }
func (h *BHS) SetITT(v uint32) { h.put(16, v) }

// TTT is the target transfer tag: Data-Out, Data-In, R2T, Text, NOP, SNACK.
func (h *BHS) TTT() uint32     { return h.u32(20) }
func (h *BHS) SetTTT(v uint32) { h.put(20, v) }

// EDTL is the expected data transfer length in bytes: SCSI Command.
func (h *BHS) EDTL() uint32     { return h.u32(20) }
func (h *BHS) SetEDTL(v uint32) { h.put(20, v) }

// RefTag is the tag of the task that a Task Management Request is about.
func (h *BHS) RefTag() uint32     { return h.u32(20) }
func (h *BHS) SetRefTag(v uint32) { h.put(20, v) }

// RefCmdSN is the CmdSN of the task that a Task Management Request is about.
func (h *BHS) RefCmdSN() uint32     { return h.u32(32) }
func (h *BHS) SetRefCmdSN(v uint32) { h.put(32, v) }

// CmdSN is in all requests but Data-Out and SNACK.
func (h *BHS) CmdSN() uint32     { return h.u32(24) }
func (h *BHS) SetCmdSN(v uint32) { h.put(24, v) }

// ExpStatSN is in all requests.
func (h *BHS) ExpStatSN() uint32     { return h.u32(28) }
func (h *BHS) SetExpStatSN(v uint32) { h.put(28, v) }

// StatSN is in all responses; in Data-In only with FlagStatus.
func (h *BHS) StatSN() uint32     { return h.u32(24) }
func (h *BHS) SetStatSN(v uint32) { h.put(24, v) }

// ExpCmdSN is in all responses.
func (h *BHS) ExpCmdSN() uint32     { return h.u32(28) }
func (h *BHS) SetExpCmdSN(v uint32) { h.put(28, v) }

// MaxCmdSN is in all responses.
func (h *BHS) MaxCmdSN() uint32     { return h.u32(32) }
func (h *BHS) SetMaxCmdSN(v uint32) { h.put(32, v) }

// DataSN is in Data-Out and Data-In; R2TSN of an R2T, ExpDataSN of a SCSI Response, and the DataSN of a Reject are at
// the same place.
func (h *BHS) DataSN() uint32     { return h.u32(36) }
func (h *BHS) SetDataSN(v uint32) { h.put(36, v) }

// Offset is the buffer offset in bytes: Data-Out, Data-In, R2T.
func (h *BHS) Offset() uint32     { return h.u32(40) }
func (h *BHS) SetOffset(v uint32) { h.put(40, v) }

// Desired is the desired data transfer length of an R2T in bytes.
func (h *BHS) Desired() uint32     { return h.u32(44) }
func (h *BHS) SetDesired(v uint32) { h.put(44, v) }

// Residual is the residual count in bytes: SCSI Response, Data-In with FlagStatus.
func (h *BHS) Residual() uint32     { return h.u32(44) }
func (h *BHS) SetResidual(v uint32) { h.put(44, v) }

// CDB16 is the part of a CDB that a SCSI Command has in its BHS.
func (h *BHS) CDB16() []byte { return h[32:48] }

// Response is byte 2: SCSI Response, Task Management Response, Logout Response; the reason of a Reject.
func (h *BHS) Response() byte     { return h[2] }
func (h *BHS) SetResponse(v byte) { h[2] = v }

// Status is the SCSI status: SCSI Response, Data-In with FlagStatus.
func (h *BHS) Status() byte     { return h[3] }
func (h *BHS) SetStatus(v byte) { h[3] = v }

// TaskFunc is the function of a Task Management Request (TaskAbort and so on).
func (h *BHS) TaskFunc() byte { return h[1] & 0x7f }

// LogoutReason is the reason of a Logout Request.
func (h *BHS) LogoutReason() byte { return h[1] & 0x7f }

// Login Request and Response.

// Stage is a stage of login.
type Stage uint8

const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFull        Stage = 3
)

func (h *BHS) CSG() Stage { return Stage(h[1] >> 2 & 3) }
func (h *BHS) NSG() Stage { return Stage(h[1] & 3) }

// SetStages sets CSG and, if transit, NSG and T; cont is C.
func (h *BHS) SetStages(csg, nsg Stage, transit, cont bool) {
	h[1] = byte(csg) << 2
	if transit {
		h[1] |= FlagTransit | byte(nsg)
	}
	if cont {
		h[1] |= FlagContinue
	}
}

// VersionMax and VersionMin are of a Login Request; a Login Response has VersionActive in the place of VersionMin.
func (h *BHS) VersionMax() byte { return h[2] }
func (h *BHS) VersionMin() byte { return h[3] }

// ISID is the initiator's part of a session's identity.
type ISID [6]byte

func (h *BHS) ISID() ISID      { return ISID(h[8:14]) }
func (h *BHS) SetISID(id ISID) { copy(h[8:14], id[:]) }

// TSIH is the target's part of a session's identity; 0 asks for a new session.
func (h *BHS) TSIH() uint16     { return binary.BigEndian.Uint16(h[14:]) }
func (h *BHS) SetTSIH(v uint16) { binary.BigEndian.PutUint16(h[14:], v) }

// CID is the connection's identity: Login Request, Logout Request.
func (h *BHS) CID() uint16     { return binary.BigEndian.Uint16(h[20:]) }
func (h *BHS) SetCID(v uint16) { binary.BigEndian.PutUint16(h[20:], v) }

// LoginStatus is the status of a Login Response: class in the high byte, detail in the low one.
func (h *BHS) LoginStatus() LoginStatus     { return LoginStatus(binary.BigEndian.Uint16(h[36:])) }
func (h *BHS) SetLoginStatus(s LoginStatus) { binary.BigEndian.PutUint16(h[36:], uint16(s)) }

// Time2Wait and Time2Retain of a Logout Response, in seconds.
func (h *BHS) Time2Wait() uint16       { return binary.BigEndian.Uint16(h[40:]) }
func (h *BHS) Time2Retain() uint16     { return binary.BigEndian.Uint16(h[42:]) }
func (h *BHS) SetTimes(wait, r uint16) { h.put(40, uint32(wait)<<16|uint32(r)) }

// Async Message: the event, the vendor's code and the three parameters.

func (h *BHS) AsyncEvent() byte              { return h[36] }
func (h *BHS) AsyncVendorCode() byte         { return h[37] }
func (h *BHS) AsyncParam(n int) uint16       { return binary.BigEndian.Uint16(h[36+2*n:]) } // n is 1 to 3
func (h *BHS) SetAsyncEvent(e, vcode byte)   { h[36], h[37] = e, vcode }
func (h *BHS) SetAsyncParam(n int, v uint16) { binary.BigEndian.PutUint16(h[36+2*n:], v) }

// SNACK: BegRun and RunLength.

func (h *BHS) BegRun() uint32    { return h.u32(40) }
func (h *BHS) RunLength() uint32 { return h.u32(44) }

// BidiResidual is the bidirectional read residual count of a SCSI Response.
func (h *BHS) BidiResidual() uint32 { return h.u32(40) }
