package poolfs

import "encoding/binary"

// The log is written in sectors of 512 bytes, each with its own checksum: so what a crash has left of the last write, whole sectors
// that are new or old, is told from damage.
const (
	sectorSize  = 512
	sectorHead  = 36
	payloadSize = sectorSize - sectorHead - 4
	perBlock    = blockSize / sectorSize
	sectorMagic = "PMSLOGS\n"

	// maxBatch is the longest batch but a checkpoint, in sectors: so the one that follows a batch that was lost is found near it.
	maxBatch = 2048
	// givenUp is the batch of the only sector of an area that another has replaced.
	givenUp = ^uint32(0)
)

// attempt names one life of an area: numbers rise, and the nonce keeps the sectors of two attempts apart that had the same number.
type attempt struct{ number, nonce uint64 }

// sector is one sector of the log.
type sector struct {
	attempt
	batch uint32 // 0 is the checkpoint, then 1, 2, ...
	left  uint32 // how many sectors of the batch follow
	load  []byte
}

// sectorsFor is how many sectors a batch has: whole blocks of 4096 bytes, for devices that write no less.
func sectorsFor(payload int) int {
	return int(roundUp(int64(max(payload, 1)), payloadSize*perBlock)) / payloadSize
}

// putSectors makes the sectors of a batch.
func putSectors(a attempt, batch uint32, payload []byte) []byte {
	n := sectorsFor(len(payload))
	out := make([]byte, n*sectorSize)
	for i := range n {
		part := payload[:min(payloadSize, len(payload))]
		payload = payload[len(part):]
		b := out[i*sectorSize : (i+1)*sectorSize]
		copy(b, sectorMagic)
		binary.BigEndian.PutUint64(b[8:], a.number)
		binary.BigEndian.PutUint64(b[16:], a.nonce)
		binary.BigEndian.PutUint32(b[24:], batch)
		binary.BigEndian.PutUint32(b[28:], uint32(n-1-i))
		binary.BigEndian.PutUint16(b[32:], uint16(len(part)))
		copy(b[sectorHead:], part)
		binary.BigEndian.PutUint32(b[sectorSize-4:], crc(b[:sectorSize-4]))
	}
	return out
}

// sectorState is what a sector is.
type sectorState uint8

const (
	never   sectorState = iota // never written: zeros
	valid                      // it has been written as a whole
	invalid                    // neither
)

func readSector(b []byte) (s sector, st sectorState) {
	if string(b[:8]) != sectorMagic {
		for _, c := range b {
			if c != 0 {
				return s, invalid
			}
		}
		return s, never
	}
	used := binary.BigEndian.Uint16(b[32:])
	if crc(b[:sectorSize-4]) != binary.BigEndian.Uint32(b[sectorSize-4:]) || used > payloadSize {
		return s, invalid
	}
	return sector{attempt{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, binary.BigEndian.Uint32(b[24:]),
		binary.BigEndian.Uint32(b[28:]), b[sectorHead : sectorHead+int(used)]}, valid
}

// areaState is what an area of the log is.
type areaState uint8

const (
	areaUnused  areaState = iota // blank, given up, or its checkpoint was never whole
	areaWhole                    // its checkpoint is whole, and so is every batch that was relied upon
	areaDamaged                  // it cannot be what was written
)

// area is what was read of one.
type area struct {
	attempt
	state   areaState
	why     string
	batches [][]byte // the checkpoint, and what followed it
}

// readArea reads an area of n sectors, of which get returns one. It decides what a crash has left: of the batch that was under way any
// sectors, and nothing of any after it, since each is written when the one before is durable. An error is get's.
func readArea(n int, get func(i int) ([]byte, error)) (a area, err error) {
	at := func(i int) (s sector, st sectorState) {
		b, gerr := get(i)
		if gerr != nil {
			err = gerr
			return s, never
		}
		return readSector(b)
	}
	bad := func(why string) (area, error) { return area{attempt: a.attempt, state: areaDamaged, why: why}, err }
	first, st := at(0)
	switch {
	case st == never:
		return a, err
	case st == invalid:
		return bad("its first sector")
	case first.batch == givenUp:
		return area{attempt: first.attempt}, err
	}
	a.attempt = first.attempt
	i := 0
	for i < n {
		load, count := readBatch(i, n, a.attempt, uint32(len(a.batches)), at)
		if count == 0 {
			break
		}
		a.batches = append(a.batches, load)
		i += count
	}
	if len(a.batches) == 0 {
		return a, err
	}
	for end := min(n, i+2*maxBatch); i < end && err == nil; i++ {
		switch s, st := at(i); {
		case st == invalid:
			return bad("a sector of the log")
		case st == valid && s.attempt == a.attempt && s.batch > uint32(len(a.batches)):
			return bad("a part of the log is missing")
		}
	}
	a.state = areaWhole
	return a, err
}

// readBatch reads the batch of a number, which has count sectors from i on; 0: it is not there as a whole.
func readBatch(i, n int, a attempt, batch uint32, at func(int) (sector, sectorState)) (load []byte, count int) {
	for k := 0; i+k < n; k++ {
		s, st := at(i + k)
		switch {
		case st != valid || s.attempt != a || s.batch != batch || int64(s.left) >= int64(n-i-k):
			return nil, 0
		case k == 0:
			count = int(s.left) + 1
		case int(s.left) != count-1-k:
			return nil, 0
		}
		load = append(load, s.load...)
		if k == count-1 {
			return load, count
		}
	}
	return nil, 0
}

// choose decides which area counts. The one that is given up, or never was whole, does not; of two, the newer has all that the
// older has. Where neither counts the log is lost, and nothing is guessed.
func choose(areas [2]area) (int, error) {
	use := -1
	for i, a := range areas {
		if a.state == areaWhole && (use < 0 || a.number > areas[use].number) {
			use = i
		}
	}
	if use < 0 {
		for i, a := range areas {
			if a.state == areaDamaged {
				return 0, damaged("area %d of the log: %s", i, a.why)
			}
		}
		return 0, damaged("there is no log")
	}
	return use, nil
}
