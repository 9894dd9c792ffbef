package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// NewScrub is the body of POST /v1/volumes/NAME/scrub.
type NewScrub struct {
	Stop bool  `json:"stop,omitempty"` // ends the one under way
	Rate int64 `json:"rate,omitempty"` // MiB of the volume in a second; 0: as configured
}

// Scrub is the state of a volume's scrubs.
type Scrub struct {
	Running bool         `json:"running"`
	Began   time.Time    `json:"began,omitzero"`    // of the one that runs
	Request string       `json:"request,omitempty"` // of the one that runs: the Idempotency-Key of its command, "" if it began by itself
	Done    int64        `json:"done"`              // bytes looked at, of Total
	Total   int64        `json:"total"`
	Last    *ScrubReport `json:"last,omitempty"` // the last one that came to its end
}

// ScrubReport is what a scrub has found, in bytes.
type ScrubReport struct {
	Began      time.Time `json:"began,omitzero"` // nothing was read before: what is damaged from then on it may have missed
	Ended      time.Time `json:"ended"`
	Seconds    float64   `json:"seconds"`
	Request    string    `json:"request,omitempty"` // as in Scrub
	Bytes      int64     `json:"read"`              // over all replicas
	Mended     int64     `json:"mended"`
	Unreadable int64     `json:"unreadable"` // from any replica
	Differing  int64     `json:"differing"`  // proved on each replica and not the same; they were made equal
}

// Scrubbing names the scrub that a command began, or the one that was under way already.
type Scrubbing struct {
	Request string    `json:"request"` // as in Scrub: another command's, or none, where one was under way
	Began   time.Time `json:"began,omitzero"`
}

// Scrub begins to read and prove all that is allocated of a volume, or stops that.
func (c *Client) Scrub(ctx context.Context, volume string, n NewScrub) (out Scrubbing, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/scrub", n, &out)
}
