package api

import (
	"context"
	"net/http"
)

// Copies is how copies in the background go, of resyncs and scrubs, of all volumes together. Rates are bytes in a second, times
// seconds.
type Copies struct {
	Paused   bool    `json:"paused"`
	Limit    int64   `json:"limit"`     // by command; 0: none
	Floor    int64   `json:"floor"`     // however slow hosts' I/O is; Limit counts more
	Rate     int64   `json:"rate"`      // what the hosts allow at present; 0: no bound
	GuestP99 float64 `json:"guest_p99"` // of hosts' I/O in the last half second beside copies; 0: hardly any, or nothing is copied
	MostP99  float64 `json:"most_p99"`  // above which copies become slower
}

// SetCopies is the body of POST /v1/resync; what is left out stays as it is.
type SetCopies struct {
	Paused *bool  `json:"paused,omitempty"`
	Limit  *int64 `json:"limit,omitempty"`
}

// Copies tells how copies in the background go.
func (c *Client) Copies(ctx context.Context) (out Copies, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/resync", nil, &out)
	return out, err
}

// SetCopies pauses, resumes or limits them.
func (c *Client) SetCopies(ctx context.Context, s SetCopies) (out Copies, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/resync", s, &out)
	return out, err
}

func (s *Server) copyRoutes() {
	b := s.backend
	s.handle("GET /v1/resync", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) {
		return b.Copies(ctx)
	})
	s.handle("POST /v1/resync", leader, with(b.SetCopies))
}
