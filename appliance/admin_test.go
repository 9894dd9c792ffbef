package appliance

import (
	"errors"
	"fmt"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/replication/peer"
)

func TestErrorsAreForAnAdmin(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("create the replica on node a: making a replica: %w", peer.ErrNoSpace), "create the replica on node a: making a replica: the pool is full"},
		{errors.New("cluster: the join token was refused: catalog: the token has expired"), "the join token was refused: the token has expired"},
		{errors.New("opening the catalog: permission denied"), "opening the catalog: permission denied"},
		{errors.New(""), ""},
	} {
		if got := plainly(c.err); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if e := told(fmt.Errorf("x: %w", peer.ErrNoSpace)); !errors.Is(e, api.ErrConflict) {
		t.Error(e)
	}
}
