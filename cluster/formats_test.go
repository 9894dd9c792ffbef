package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"pmsapp/internal/ids"
)

// withSum ends an entry of the log with its checksum.
func withSum(i uint64, b []byte) []byte {
	s := sumLog(i, b)
	return append(b[:len(b):len(b)], byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

// TestLogFormat is docs/FORMATS.md's drawing of an entry.
func TestLogFormat(t *testing.T) {
	l := raft.Log{Index: 0x0102, Type: raft.LogConfiguration, Term: 7, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(0, 9)}
	want := withSum(0x0102, append([]byte{1, byte(raft.LogConfiguration), 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3}, "extdata"...))
	if got := encodeLog(&l); !bytes.Equal(got, want) {
		t.Fatalf("%x, want %x", got, want)
	}
	var back raft.Log
	if err := decodeLog(l.Index, want, &back); err != nil || cmp.Diff(l, back) != "" {
		t.Fatal(err, cmp.Diff(l, back))
	}
	if err := decodeLog(l.Index+1, want, &back); err == nil {
		t.Error("an entry passes for another")
	}
	for i := range want {
		bad := bytes.Clone(want)
		bad[i] ^= 4
		if err := decodeLog(l.Index, bad, &back); err == nil {
			t.Errorf("byte %d was changed, and nobody noticed", i)
		}
	}
}

func FuzzLog(f *testing.F) {
	f.Add(uint64(1), encodeLog(&raft.Log{Index: 1, Term: 2, Data: []byte("x")}), false)
	f.Add(uint64(9), []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, i uint64, b []byte, sum bool) {
		if sum {
			b = withSum(i, b)
		}
		var l, again raft.Log
		if decodeLog(i, b, &l) != nil {
			return
		}
		if err := decodeLog(i, encodeLog(&l), &again); err != nil || cmp.Diff(l, again) != "" {
			t.Fatal(err, cmp.Diff(l, again))
		}
	})
}

func FuzzIdentity(f *testing.F) {
	head := func(body []byte) []byte {
		return append(fmt.Appendf(nil, "%s%08x\n", identityHead, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))), body...)
	}
	good, err := json.Marshal(identity{Node: ids.NewNode(), Secret: make([]byte, 32), Peers: []string{"a:1"}})
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := parseIdentity(head(good)); !ok {
		f.Fatal("a good identity is refused")
	}
	f.Add(head(good), false)
	f.Add(good, true)
	f.Add([]byte(`{"Node":7}`), true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum {
			b = head(b)
		}
		if id, ok := parseIdentity(b); ok && (id.Node.IsZero() || len(id.Secret) != 32) {
			t.Fatal("an identity that is none was read")
		}
	})
}

// FuzzMessage: what comes from another node between a length and its end.
func FuzzMessage(f *testing.F) {
	var b bytes.Buffer
	if err := writeMessage(&b, message{Method: "enter", Body: json.RawMessage(`{"a":1}`)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b), 1<<16)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeMessage(&again, m); err != nil {
			t.Fatal(err)
		}
		if _, err := readMessage(&again, 1<<20); err != nil {
			t.Fatal(err)
		}
	})
}
