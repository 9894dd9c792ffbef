package catalog

import (
	"encoding/binary"
	"fmt"
	"time"

	"pmsapp/internal/ids"
)

// Changes of trees come hundreds a second, so they have a form of their own in the log beside that of all commands, which is JSON
// and begins with '{' (docs/FORMATS.md): the form (1), the time (8, nanoseconds since 1970), the epoch (8), the volume (16), the
// version of its set (8), and the ops.
const (
	binaryForm  = 1
	binaryHead  = 41
	binarySince = 2 // the version of the commands that has this form
)

// Encode writes a command as every node of the state can read it.
func (s *State) Encode(c Command) ([]byte, error) {
	b, ok := c.Body.(ChangeTree)
	at := c.Time.UnixNano()
	if !ok || c.Request != "" || s.oldest() < binarySince || !time.Unix(0, at).Equal(c.Time) || binaryHead+len(b.Ops) > MaxCommand {
		return Encode(c)
	}
	out := make([]byte, 0, binaryHead+len(b.Ops))
	out = append(out, binaryForm)
	out = binary.BigEndian.AppendUint64(out, uint64(at))
	out = binary.BigEndian.AppendUint64(out, b.Epoch)
	out = append(out, b.Volume[:]...)
	out = binary.BigEndian.AppendUint64(out, b.Version)
	return append(out, b.Ops...), nil
}

// decodeBinary reads a change of a tree. Its ops are b's bytes.
func decodeBinary(b []byte) (Command, error) {
	if len(b) < binaryHead {
		return Command{}, fmt.Errorf("%w: a change of a tree of %d bytes", ErrUnreadable, len(b))
	}
	return Command{
		Time: time.Unix(0, int64(binary.BigEndian.Uint64(b[1:]))),
		Body: ChangeTree{
			Epoch:   binary.BigEndian.Uint64(b[9:]),
			Volume:  ids.Volume(b[17:33]),
			Version: binary.BigEndian.Uint64(b[33:]),
			Ops:     b[binaryHead:],
		},
	}, nil
}
