package soak

import (
	"context"
	"fmt"
	"time"

	"pmsapp/appliance/api"
)

// admins change the catalog, and know what they were told of it. What they do nothing else looks at: they add hosts and take them out.
type admins struct {
	client *api.Client
	n      int
	told   map[string]bool // of hosts: they are there, or are not. One whose command had no answer is not in it
}

// begin has hosts added one after the other until the function that it returns is called.
func (a *admins) begin() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			a.n++
			h := api.NewHost{Name: fmt.Sprint("admins-", a.n), IQNs: []string{fmt.Sprint("iqn.2026-11.app.pmsapp:admins-", a.n)}}
			if _, err := a.client.AddHost(ctx, h); err == nil {
				a.told[h.Name] = true
			}
		}
	}()
	return func() { cancel(); <-done }
}

// check looks for what was answered and is not so, and takes the hosts out again.
func (a *admins) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all, err := a.client.Hosts(ctx)
	if err != nil {
		return fmt.Errorf("listing the hosts: %w", err)
	}
	found := map[string]bool{}
	for _, h := range all {
		found[h.Name] = true
	}
	for name, there := range a.told {
		if found[name] != there {
			return fmt.Errorf("LOST OR STALE: the catalog has host %s: %v; an admin was told %v", name, found[name], there)
		}
	}
	for name := range found {
		delete(a.told, name)
		if a.client.RemoveHost(ctx, name) == nil {
			a.told[name] = false
		}
	}
	return nil
}
