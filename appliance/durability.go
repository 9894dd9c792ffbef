package appliance

import (
	"context"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// inMemory tells whether a durability is "memory".
func inMemory(d string) (bool, error) {
	switch d {
	case "", api.Disk:
		return false, nil
	case api.Memory:
		return true, nil
	}
	return false, api.Errorf(api.ErrInvalid, "", "durability: %.20q is neither %s nor %s", d, api.Disk, api.Memory)
}

// SetDurability implements api.Backend. Where the volume is served it returns when the hosts have been told.
func (n *node) SetDurability(ctx context.Context, request, name string, w api.NewDurability) (api.Volume, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Volume{}, err
	}
	memory, err := inMemory(w.Durability)
	if err == nil && w.Durability == "" {
		err = api.Errorf(api.ErrInvalid, "", "durability: name %s or %s", api.Disk, api.Memory)
	}
	if err != nil {
		return api.Volume{}, err
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.SetDurability{Volume: v.ID, Memory: memory}}); err != nil {
		return api.Volume{}, err
	}
	n.awaitDurability(ctx, v.ID, memory)
	return n.show(v.ID)
}

// durabilityLimit is how long a change of a durability is waited for. It goes on by itself.
const durabilityLimit = 5 * time.Second

// awaitDurability waits until the volume's device says what its acknowledgements mean.
func (n *node) awaitDurability(ctx context.Context, id ids.Volume, memory bool) {
	ctx, cancel := context.WithTimeout(ctx, durabilityLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if cached, served := n.service.cached(id); !served || cached == memory {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return // the answer says how far it is
		}
	}
}

func durabilityName(v catalog.Volume) string {
	if v.Memory {
		return api.Memory
	}
	return api.Disk
}
