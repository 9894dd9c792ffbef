package reserve

// Class is what a command does, as far as reservations care (SPC-4 table 65, SBC-3 table 13).
type Class uint8

const (
	// Free commands are allowed whatever is reserved; those about reservations are judged by Apply.
	Free Class = iota
	// Info commands read nothing of the medium: persistent reservations allow them (ALLOW COMMANDS, SPC-4 table 200), a RESERVE
	// command's reservation does not.
	Info
	// Read commands read the medium.
	Read
	// Write commands are all others.
	Write
)

// ClassOf is the class of a command. What it does not know is a Write.
func ClassOf(cdb []byte) Class {
	switch cdb[0] {
	case 0x12, 0xa0, 0x03, 0x4d, 0x5e, 0x5f, 0x16, 0x17, 0x56, 0x57:
		// INQUIRY, REPORT LUNS, REQUEST SENSE, LOG SENSE, PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE
		return Free
	case 0xa3: // MAINTENANCE IN: REPORT TARGET PORT GROUPS, REPORT SUPPORTED ...
		if cdb[1]&0x1f == 0x0a {
			return Free
		}
		return Info
	case 0x00, 0x1a, 0x5a, 0x25, 0x84, 0x1c: // TEST UNIT READY, MODE SENSE, READ CAPACITY(10), RECEIVE COPY RESULTS, RECEIVE DIAGNOSTIC
		return Info
	case 0x1b: // START STOP UNIT: only a start
		if cdb[4]&0xf1 == 1 {
			return Info
		}
	case 0x9e: // SERVICE ACTION IN(16): READ CAPACITY(16), GET LBA STATUS, and others that read
		if sa := cdb[1] & 0x1f; sa == 0x10 || sa == 0x12 {
			return Info
		}
		return Read
	case 0x08, 0x28, 0xa8, 0x88, 0x34, 0x90, 0x2f, 0xaf, 0x8f, 0x37, 0xb7, 0x3c, 0x9b:
		// READ, PRE-FETCH, VERIFY, READ DEFECT DATA, READ BUFFER
		return Read
	}
	return Write
}

// Allows tells whether n may do commands of a class.
func (s *State) Allows(n Nexus, c Class) bool {
	switch {
	case c == Free:
		return true
	case !s.Exclusive.IsZero() && s.Exclusive != n:
		return false
	case s.Type == 0 || c == Info || c == Read && s.Type.readable():
		return true
	case s.Type.shared():
		return s.Key(n) != 0
	}
	return s.Holder == n
}
