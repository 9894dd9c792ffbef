package appliance

import (
	"context"
	"fmt"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/replication/throttle"
)

// copySettings is what copies in the background go by: the file's, and what the admin has said.
func (n *node) copySettings() throttle.Settings {
	n.mu.Lock()
	c := n.copies
	n.mu.Unlock()
	said := n.cluster.State().Resync
	return throttle.Settings{GuestP99: c.GuestP99, Floor: c.Floor << 20, Limit: said.Limit, Paused: said.Paused}
}

// Copies implements api.Backend.
func (n *node) Copies(context.Context) (api.Copies, error) {
	s := n.throttle.State()
	return api.Copies{Paused: s.Settings.Paused, Limit: s.Settings.Limit, Floor: s.Settings.Floor, Rate: s.Rate,
		GuestP99: s.GuestP99.Seconds(), MostP99: s.Settings.GuestP99.Seconds()}, nil
}

// SetCopies implements api.Backend.
func (n *node) SetCopies(ctx context.Context, request string, w api.SetCopies) (api.Copies, error) {
	to := n.cluster.State().Resync
	if w.Paused != nil {
		to.Paused = *w.Paused
	}
	if w.Limit != nil {
		to.Limit = *w.Limit
	}
	if to.Limit < 0 || to.Limit > catalog.MaxResync {
		return api.Copies{}, api.Errorf(api.ErrInvalid, "", "limit: %d is not 0 to %d bytes in a second", to.Limit, int64(catalog.MaxResync))
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.SetResync{Resync: to}}); err != nil {
		return api.Copies{}, err
	}
	return n.Copies(ctx)
}

// copyWarnings tell what an admin may have forgotten.
func copyWarnings(st *catalog.State) (out []string) {
	if st.Resync.Paused {
		out = append(out, "resyncs and scrubs are paused: pmsapp resync resume")
	}
	if l := st.Resync.Limit; l > 0 {
		out = append(out, fmt.Sprintf("resyncs and scrubs are limited to %d MiB in a second: pmsapp resync limit 0", l>>20))
	}
	return out
}
