package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"pmsapp/appliance/api"
)

// ErrWait is returned when what was waited for did not come in time.
var ErrWait = errors.New("waited in vain")

// Wait asks f again and again until it says yes; past limit it is an ErrWait that names what, and f's last error.
func Wait(ctx context.Context, what string, limit time.Duration, f func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		yes, err := f(ctx)
		if yes {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w %v for %s", ErrWait, limit, what), last)
		}
	}
}

// WaitStatus waits until some node's answer satisfies f, and returns the last answer. A node that ends meanwhile is an error: its log's
// last lines say why.
func (c *Cluster) WaitStatus(ctx context.Context, what string, limit time.Duration, f func(api.Status) bool) (s api.Status, err error) {
	var ended error
	err = Wait(ctx, what, limit, func(ctx context.Context) (bool, error) {
		for _, n := range c.Nodes {
			if n.proc != nil && !n.Running() && n.proc.Err() != nil && !killed(n.proc.Err()) {
				ended = fmt.Errorf("%s ended: %w: %s", n.Name, n.proc.Err(), n.Tail(5))
				return true, nil
			}
		}
		now, err := c.client.Status(ctx, false)
		if err != nil {
			return false, err
		}
		s = now
		return f(s), nil
	})
	return s, errors.Join(ended, err)
}

func killed(err error) bool { return strings.Contains(err.Error(), "signal: killed") }

// Tail returns the last lines of a node's log.
func (n *Node) Tail(lines int) string {
	b, err := os.ReadFile(n.Log)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
