package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/cluster/catalog"
)

// Events come in their order, also when no leader takes them at first, and at the end of the node.
func TestEventsAreRecordedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		fails := 3
		l := newEventLog(func(_ context.Context, batch []catalog.Event) error {
			if fails > 0 {
				fails--
				return errors.New("no leader")
			}
			for _, e := range batch {
				got = append(got, e.Text)
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		for i := range 100 {
			l.add(catalog.Event{Text: fmt.Sprint(i)})
		}
		time.Sleep(5 * time.Second) // three tries fail
		l.add(catalog.Event{Text: "100"})
		cancel()
		<-done
		for i, s := range got {
			if s != fmt.Sprint(i) {
				t.Fatalf("event %d is %q", i, s)
			}
		}
		if len(got) != 101 {
			t.Fatalf("%d events recorded", len(got))
		}
	})
}
