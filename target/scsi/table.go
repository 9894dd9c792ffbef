package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// maxAnswer is the size of the buffer that gotgt's handlers write their answers to.
const maxAnswer = 4096

// newTable returns gotgt's command table with every entry replaced, but for the commands that it carries out rightly;
// and those are guarded from what it does not look at. The commands that move blocks are not in it at all: a handler of
// gotgt's is never run for them.
func (lu *LU) newTable() []gotgt.SCSIDeviceOperation {
	ops := gotgt.NewSBCDevice(api.TYPE_DISK).(gotgt.SBCSCSIDeviceProtocol).SCSIDeviceOps
	keep := map[byte]gotgt.SCSIDeviceOperation{}
	for _, op := range []byte{opTestUnitReady, opReadCapacity10, opSendDiagnostic} {
		keep[op] = ops[op]
	}
	set := func(op byte, f api.CommandFunc) { ops[op] = gotgt.NewSCSIDeviceOperation(f, nil, 0) }
	for op := range ops {
		set(byte(op), illegalOp)
	}
	ops[opTestUnitReady] = keep[opTestUnitReady]
	set(opReadCapacity10, guard(keep[opReadCapacity10].CommandPerformFunc, func(cdb []byte) bool {
		return cdb[8]&1 == 0 && binary.BigEndian.Uint32(cdb[2:]) == 0
	}))
	set(opSendDiagnostic, guard(keep[opSendDiagnostic].CommandPerformFunc, func(cdb []byte) bool {
		// The default self-test only: the LU is there, which is all that it has to test.
		return cdb[1] == 0x04 && cdb[3] == 0 && cdb[4] == 0
	}))
	set(opInquiry, lu.inquiry)
	set(opRequestSense, requestSense)
	set(opReportLUNs, reportLUNs)
	set(opModeSense6, modeSense)
	set(opModeSense10, modeSense)
	set(opModeSelect6, modeSelect)
	set(opModeSelect10, modeSelect)
	set(opLogSense, logSense)
	set(opReadDefects10, readDefects)
	set(opReadDefects12, readDefects)
	set(opCopyResults, copyResults)
	set(opStartStop, startStop)
	set(opServiceActionIn, serviceActionIn)
	set(opMaintenanceIn, maintenanceIn)
	return ops
}

// perform is api.SCSILu.PerformCommand.
func (lu *LU) perform(host int, cmd *api.SCSICommand) api.SAMStat {
	return lu.table[cmd.OpCode].CommandPerformFunc(host, cmd)
}

// primary carries out a command that moves no blocks. It does not call Done.
func (x *Nexus) primary(c *io) {
	t := c.task
	buf := block.Get(maxAnswer)
	clear(buf)
	cmd := &api.SCSICommand{
		OpCode: t.CDB[0], SCB: t.CDB, SCBLength: len(t.CDB), Lun: t.LUN, Tag: uint64(t.Tag),
		Target:          &api.SCSITarget{Name: x.target.name, SCSITargetDriver: call{x, c}},
		RelTargetPortID: x.port,
		InSDBBuffer:     &api.SCSIDataBuffer{Buffer: buf, Length: maxAnswer},
		OutSDBBuffer:    &api.SCSIDataBuffer{},
		SenseBuffer:     &api.SenseBuffer{}, ITNexus: &api.ITNexus{}, ITNexusLuInfo: &api.ITNexusLuInfo{},
	}
	var perform api.CommandFunc
	switch {
	case c.known:
		cmd.Device = c.st.api
		perform = c.st.api.PerformCommand
	default:
		perform = noUnit
	}
	switch t.CDB[0] {
	case opInquiry, opReportLUNs, opRequestSense, opMaintenanceIn:
	default:
		if c.known && c.st.dev == nil && supported(t.CDB) {
			block.Put(buf)
			check(t, c.unit.lu.notReady(x.port))
			return
		}
	}
	result := guarded(perform, cmd)
	answer := cmd.InSDBBuffer.Buffer
	if &answer[0] != &buf[0] {
		block.Put(buf)
	}
	if result.Stat != api.SAM_STAT_GOOD {
		block.Put(answer)
		check(t, senseOf(cmd))
		return
	}
	t.Status = api.SAM_STAT_GOOD
	t.DataIn = answer[:min(int(cmd.InSDBBuffer.Resid), len(answer))]
}

// call is what our handlers find in a command of gotgt's, in the field that it leaves to transports.
type call struct {
	nexus *Nexus
	io    *io
}

func callOf(cmd *api.SCSICommand) call { return cmd.Target.SCSITargetDriver.(call) }

// guarded runs a handler. One that panics must not take the node with it.
func guarded(f api.CommandFunc, cmd *api.SCSICommand) (result api.SAMStat) {
	defer func() {
		if recover() != nil {
			result = refuse(cmd, sense{key: gotgt.HARDWARE_ERROR, asc: uint16(gotgt.ASC_INTERNAL_TGT_FAILURE)})
		}
	}()
	return f(0, cmd)
}

// guard runs a handler of gotgt's only for CDBs that it treats rightly.
func guard(f api.CommandFunc, ok func(cdb []byte) bool) api.CommandFunc {
	return func(host int, cmd *api.SCSICommand) api.SAMStat {
		if !ok(cmd.SCB) {
			return refuse(cmd, invalidField())
		}
		return f(host, cmd)
	}
}

// refuse ends a command with CHECK CONDITION.
func refuse(cmd *api.SCSICommand, s sense) api.SAMStat {
	cmd.SenseBuffer = &api.SenseBuffer{Buffer: s.fixed(make([]byte, 18), 0, false), Length: 18}
	return api.SAMStatCheckCondition
}

// senseOf reads the sense data of a command that was refused. gotgt cuts them off at the allocation length, of all
// things; its handlers that are in use refuse nothing that has passed their guards.
func senseOf(cmd *api.SCSICommand) sense {
	b := cmd.SenseBuffer
	if b == nil || len(b.Buffer) < 14 {
		return invalidField()
	}
	s := sense{key: b.Buffer[2] & 0x0f, asc: binary.BigEndian.Uint16(b.Buffer[12:])}
	if len(b.Buffer) >= 18 && b.Buffer[15]&0x80 != 0 {
		s.at = binary.BigEndian.Uint16(b.Buffer[16:])
	}
	return s
}

// answer ends a command with data, cut off at the allocation length.
func answer(cmd *api.SCSICommand, data []byte, allocation uint64) api.SAMStat {
	if uint64(len(data)) > allocation {
		data = data[:allocation]
	}
	if len(data) <= len(cmd.InSDBBuffer.Buffer) {
		copy(cmd.InSDBBuffer.Buffer, data)
	} else {
		cmd.InSDBBuffer.Buffer = data
	}
	cmd.InSDBBuffer.Resid = uint32(len(data))
	return api.SAMStatGood
}

func illegalOp(_ int, cmd *api.SCSICommand) api.SAMStat { return refuse(cmd, invalidOp()) }

// noUnit answers what is answered for a LUN without a unit (SPC-4 6.6.1, 6.33, 6.39).
func noUnit(host int, cmd *api.SCSICommand) api.SAMStat {
	switch cmd.OpCode {
	case opInquiry:
		if cmd.SCB[1] != 0 || cmd.SCB[2] != 0 {
			return refuse(cmd, invalidField())
		}
		return answer(cmd, standardInquiry(qualifierNone), uint64(binary.BigEndian.Uint16(cmd.SCB[3:])))
	case opReportLUNs:
		return reportLUNs(host, cmd)
	}
	return senseData(cmd, illegal(gotgt.ASC_LUN_NOT_SUPPORTED))
}

// requestSense answers a pending unit attention, which is thereby taken away, or that there is nothing to report.
func requestSense(_ int, cmd *api.SCSICommand) api.SAMStat {
	c := callOf(cmd).io
	if cmd.SCB[1]&^1 != 0 {
		return refuse(cmd, invalidField())
	}
	s, ok := c.unit.attention.take()
	if !ok && c.st.dev == nil {
		s = c.unit.lu.notReady(callOf(cmd).nexus.port)
	}
	return senseData(cmd, s)
}

func senseData(cmd *api.SCSICommand, s sense) api.SAMStat {
	b := make([]byte, 18)
	if cmd.SCB[1]&1 != 0 {
		b = s.descriptor(b)
	} else {
		b = s.fixed(b, 0, false)
	}
	return answer(cmd, b, uint64(cmd.SCB[4]))
}

// reportLUNs does REPORT LUNS (SPC-4 6.33). LUN 0 is always among them: it answers INQUIRY even where there is none.
func reportLUNs(_ int, cmd *api.SCSICommand) api.SAMStat {
	allocation := binary.BigEndian.Uint32(cmd.SCB[6:])
	if cmd.SCB[2] > 2 || allocation < 16 {
		return refuse(cmd, invalidField())
	}
	var numbers []uint16
	if cmd.SCB[2] != 1 { // 1: only well-known logical units, of which there are none
		numbers = callOf(cmd).nexus.target.numbers()
		if len(numbers) == 0 || numbers[0] != 0 {
			numbers = append([]uint16{0}, numbers...)
		}
	}
	b := make([]byte, 8, 8+8*len(numbers))
	binary.BigEndian.PutUint32(b, uint32(8*len(numbers)))
	for _, n := range numbers {
		l := target.FlatLUN(n)
		b = append(b, l[:]...)
	}
	return answer(cmd, b, uint64(allocation))
}

// startStop does START STOP UNIT (SBC-3 5.25). The unit is always started; it can be neither stopped nor ejected.
func startStop(_ int, cmd *api.SCSICommand) api.SAMStat {
	condition, start, eject := cmd.SCB[4]>>4, cmd.SCB[4]&1 != 0, cmd.SCB[4]&2 != 0
	if condition > 1 || cmd.SCB[3] != 0 || eject || condition == 0 && !start {
		return refuse(cmd, invalidField())
	}
	return api.SAMStatGood
}
