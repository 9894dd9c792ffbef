package cli

import (
	"fmt"
	"io"
	"time"

	"pmsapp/appliance/api"
)

type resyncCmd struct {
	Show   resyncShowCmd   `cmd:"" default:"1" help:"Show how fast resyncs and scrubs may be, and why."`
	Pause  resyncPauseCmd  `cmd:"" help:"Stop all resyncs and scrubs where they are, until resume."`
	Resume resyncResumeCmd `cmd:"" help:"Let them go on."`
	Limit  resyncLimitCmd  `cmd:"" help:"Limit all of them together."`
}

type resyncShowCmd struct{}

func (resyncShowCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Copies(e.ctx)
		if err != nil {
			return err
		}
		return e.copies(s)
	})
}

type resyncPauseCmd struct{}

func (resyncPauseCmd) Run(e *env) error { yes := true; return e.setCopies(api.SetCopies{Paused: &yes}) }

type resyncResumeCmd struct{}

func (resyncResumeCmd) Run(e *env) error { no := false; return e.setCopies(api.SetCopies{Paused: &no}) }

type resyncLimitCmd struct {
	MiB int64 `arg:"" name:"mib" help:"MiB in a second; 0: no limit."`
}

func (cmd resyncLimitCmd) Run(e *env) error {
	if cmd.MiB < 0 || cmd.MiB > 1<<20 {
		return fmt.Errorf("%d MiB in a second is not 0 to %d", cmd.MiB, 1<<20)
	}
	limit := cmd.MiB << 20
	return e.setCopies(api.SetCopies{Limit: &limit})
}

func (e *env) setCopies(s api.SetCopies) error {
	return e.call(func(c *api.Client) error {
		out, err := c.SetCopies(e.ctx, s)
		if err != nil {
			return err
		}
		return e.copies(out)
	})
}

func (e *env) copies(s api.Copies) error {
	return e.show(s, func(w io.Writer) {
		second := func(d float64) time.Duration {
			return time.Duration(d * float64(time.Second)).Round(100 * time.Microsecond)
		}
		rate := "as fast as they can be"
		switch {
		case s.Paused:
			rate = "paused"
		case s.Rate > 0:
			rate = "at most " + bytes(s.Rate) + "/s at present"
		}
		limit, p99 := "none", "hardly any I/O, or nothing is copied"
		if s.Limit > 0 {
			limit = bytes(s.Limit) + "/s"
		}
		if s.GuestP99 > 0 {
			p99 = second(s.GuestP99).String()
		}
		row(w, "resyncs and scrubs", rate)
		row(w, "limit", limit)
		row(w, "floor", bytes(s.Floor)+"/s")
		row(w, "p99 of hosts' I/O", p99)
		row(w, "they give way above", second(s.MostP99).String())
	})
}
