package cluster

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestAppendIsRepeatedHeartbeatIsNot(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name         string
		args         raft.AppendEntriesRequest
		fails, hopes int // attempts that fail; times that there is hope
		tries        int
		want         error
	}{
		{"at once", raft.AppendEntriesRequest{PrevLogEntry: 7}, 0, 0, 1, nil},
		{"in the end", raft.AppendEntriesRequest{PrevLogEntry: 7}, 3, 9, 4, nil},
		{"the first entries", raft.AppendEntriesRequest{Entries: []*raft.Log{{}}}, 2, 9, 3, nil},
		{"no hope left", raft.AppendEntriesRequest{PrevLogEntry: 7}, 9, 2, 3, broken},
		{"heartbeat", raft.AppendEntriesRequest{Term: 3}, 9, 9, 1, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			tries, hoped := 0, 0
			err := patiently(&c.args, func() error {
				if tries++; tries <= c.fails {
					return broken
				}
				return nil
			}, func() bool { hoped++; return hoped <= c.hopes })
			if !errors.Is(err, c.want) || tries != c.tries {
				t.Fatalf("%v after %d attempts, want %v after %d", err, tries, c.want, c.tries)
			}
		})
	}
}
