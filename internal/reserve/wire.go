package reserve

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"pmsapp/internal/iscsi"
)

// PortName is the name of an iSCSI initiator port.
func PortName(initiator string, isid iscsi.ISID) string {
	return fmt.Sprintf("%s,i,0x%s", strings.ToLower(initiator), hex.EncodeToString(isid[:]))
}

// MaxParameters bounds the parameter list of PERSISTENT RESERVE OUT, in bytes.
const MaxParameters = 8 << 10

// Error is a command that cannot be read: ILLEGAL REQUEST with ASC.
type Error struct{ ASC uint16 }

func (e *Error) Error() string { return fmt.Sprintf("reserve: ILLEGAL REQUEST %04xh", e.ASC) }

const parameterListLength = 0x1a00

// ParseOut reads a PERSISTENT RESERVE OUT command of a nexus (SPC-4 6.16). ports are all target ports of the device. Its
// errors are *Error.
func ParseOut(n Nexus, ports []uint16, cdb, list []byte) (Command, error) {
	c := Command{Nexus: n, Action: Action(cdb[1] & 0x1f), Scope: cdb[2] >> 4, Type: Type(cdb[2] & 0xf)}
	length := binary.BigEndian.Uint32(cdb[5:])
	switch {
	case c.Action > RegisterMove:
		return c, &Error{invalidCDB}
	case length < 24 || length > MaxParameters || int(length) != len(list):
		return c, &Error{parameterListLength}
	}
	c.Key, c.ServiceKey = binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])
	if c.Action == RegisterMove {
		return c, c.parseMove(ports, list)
	}
	flags := list[20]
	if c.Specified = flags&0x08 != 0; !c.Specified && length != 24 {
		return c, &Error{parameterListLength}
	}
	if c.Specified && c.Action != Register {
		return c, &Error{invalidParameter}
	}
	if c.Action != Register && c.Action != RegisterIgnore { // elsewhere the flags are ignored
		return c, nil
	}
	if flags&0x04 != 0 {
		c.Ports = ports
	}
	if c.Specified {
		return c, c.parseOthers(list[24:])
	}
	return c, nil
}

// parseOthers reads the TransportIDs of SPEC_I_PT.
func (c *Command) parseOthers(b []byte) error {
	if len(b) < 4 || int64(binary.BigEndian.Uint32(b)) != int64(len(b)-4) {
		return &Error{parameterListLength}
	}
	for b = b[4:]; len(b) > 0; {
		name, n, err := parseTransportID(b)
		if err != nil {
			return err
		}
		c.Others = append(c.Others, name)
		b = b[n:]
	}
	return nil
}

// parseMove reads the parameter list of REGISTER AND MOVE (SPC-4 table 211).
func (c *Command) parseMove(ports []uint16, list []byte) error {
	if int64(binary.BigEndian.Uint32(list[20:])) != int64(len(list)-24) {
		return &Error{parameterListLength}
	}
	c.Unregister = list[17]&0x02 != 0
	c.To.Port = binary.BigEndian.Uint16(list[18:])
	known := c.To.Port == c.Nexus.Port
	for _, p := range ports {
		known = known || p == c.To.Port
	}
	name, n, err := parseTransportID(list[24:])
	if err != nil {
		return err
	}
	if !known || n != len(list)-24 {
		return &Error{invalidParameter}
	}
	c.To.Initiator = name
	return nil
}

// parseTransportID reads an iSCSI TransportID (SPC-4 7.6.4.6), of an initiator port: one that names a device alone is refused.
func parseTransportID(b []byte) (name string, n int, err error) {
	if len(b) < 24 || b[0] != 0x45 {
		return "", 0, &Error{invalidParameter}
	}
	n = 4 + int(binary.BigEndian.Uint16(b[2:]))
	if n < 24 || n > len(b) || n%4 != 0 || n > 4+MaxName {
		return "", 0, &Error{invalidParameter}
	}
	text, rest, ended := strings.Cut(string(b[4:n]), "\x00")
	device, isid, two := strings.Cut(text, ",i,0x")
	if raw, err := hex.DecodeString(isid); err == nil && two && ended && device != "" && len(raw) == 6 && strings.Trim(rest, "\x00") == "" && printable(device) {
		return PortName(device, iscsi.ISID(raw)), n, nil
	}
	return "", 0, &Error{invalidParameter}
}

func printable(s string) bool {
	for _, r := range s {
		if r <= ' ' || r > '~' || r == ',' {
			return false
		}
	}
	return true
}

// transportID writes one.
func transportID(name string) []byte {
	b := append([]byte{0x45, 0, 0, 0}, name...)
	for b = append(b, 0); len(b)%4 != 0 || len(b) < 24; {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// Service actions of PERSISTENT RESERVE IN (SPC-4 table 195).
const (
	readKeys           = 0x00
	readReservation    = 0x01
	reportCapabilities = 0x02
	readFullStatus     = 0x03
)

// In answers a PERSISTENT RESERVE IN command, in full length (SPC-4 6.15). Its errors are *Error.
func (s *State) In(cdb []byte) ([]byte, error) {
	switch cdb[1] & 0x1f {
	case readKeys:
		b := s.head(8 * len(s.Registered))
		for _, r := range s.Registered {
			b = binary.BigEndian.AppendUint64(b, r.Key)
		}
		return b, nil
	case readReservation:
		if s.Type == 0 {
			return s.head(0), nil
		}
		b := s.head(16)
		b = binary.BigEndian.AppendUint64(b, s.Key(s.Holder)) // of all-registrants types 0: nobody is Holder
		return append(b, 0, 0, 0, 0, 0, byte(s.Type), 0, 0), nil
	case reportCapabilities:
		// CRH, SIP_C, ATP_C, PTPL_C; TMV, ALLOW COMMANDS 001b, PTPL_A; all types
		return []byte{0, 8, 0x1d, 0x91, 0xea, 0x01, 0, 0}, nil
	case readFullStatus:
		var list []byte
		for _, r := range s.Registered {
			d := make([]byte, 24)
			binary.BigEndian.PutUint64(d, r.Key)
			if s.Holds(r.Nexus) {
				d[12], d[13] = 0x01, byte(s.Type)
			}
			binary.BigEndian.PutUint16(d[18:], r.Port)
			id := transportID(r.Initiator)
			binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
			list = append(append(list, d...), id...)
		}
		return append(s.head(len(list)), list...), nil
	}
	return nil, &Error{invalidCDB}
}

// head begins an answer: PRGENERATION and the length of what follows.
func (s *State) head(n int) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8+n), s.Generation)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}
