package api

import (
	"context"
	"net/http"
	"net/url"
)

// Durabilities of a volume: what the acknowledgement of a write means (invariant 1).
const (
	Disk   = "disk"
	Memory = "memory"
)

// NewDurability is the body of POST /v1/volumes/NAME/durability.
type NewDurability struct {
	Durability string `json:"durability"` // Disk or Memory
}

// SetDurability changes the durability of a volume, or a share, while it is in use.
func (c *Client) SetDurability(ctx context.Context, volume string, d NewDurability) (out Volume, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/durability", d, &out)
}

func (s *Server) durabilityRoute() {
	s.handle("POST /v1/volumes/{name}/durability", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var d NewDurability
		if err := decode(body, &d); err != nil {
			return nil, err
		}
		return s.backend.SetDurability(ctx, request, r.PathValue("name"), d)
	})
}
