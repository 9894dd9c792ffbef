package guest

import (
	"flag"
	"testing"
	"time"

	"pmsapp/appliance/api"
)

var failovers = flag.Int("failovers", 3, "how many leaders die under the guests' load")

func TestBoot(t *testing.T) {
	img, yes := outside(t)
	if yes {
		return
	}
	newBridge(t)
	b := time.Now()
	m := newMachine(t, img, 1)
	t.Log(time.Since(b), m.run(10*time.Second, "uname -a; df; ps aux | tail -5"))
	b = time.Now()
	c := newCluster(t, true)
	t.Log(time.Since(b), c.whole().Leader)
	_ = api.NewLUN{}
}
