package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Trashed is a deleted volume that can be restored.
type Trashed struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"` // as it was; another volume may have it by now
	Size     int64     `json:"size"`
	Deleted  time.Time `json:"deleted"`      // by the clock of the node that led
	Left     int64     `json:"seconds_left"` // of time in which a node leads; then it is purged. -1: not by itself, for it is of a backup
	Replicas []Replica `json:"replicas"`
}

// Restore is the body of POST /v1/trash/{name}/restore.
type Restore struct {
	As            string `json:"as,omitempty"`             // its name from then on
	OverSubscribe bool   `json:"over_subscribe,omitempty"` // as in NewReplica
}

func (s *Server) trashRoutes() {
	b := s.backend
	s.handle("GET /v1/trash", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) {
		return b.Trash(ctx)
	})
	s.handle("POST /v1/trash/{name}/restore", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var v Restore
		if err := decode(body, &v); err != nil {
			return nil, err
		}
		return b.RestoreVolume(ctx, request, r.PathValue("name"), v)
	})
	s.handle("DELETE /v1/trash/{name}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.PurgeVolume(ctx, request, r.PathValue("name"))
	})
}

// Trash lists the deleted volumes that can be restored, the oldest deletion first.
func (c *Client) Trash(ctx context.Context) (t []Trashed, err error) {
	return t, c.call(ctx, http.MethodGet, "/v1/trash", nil, &t)
}

// RestoreVolume takes a deletion back.
func (c *Client) RestoreVolume(ctx context.Context, name string, r Restore) (v Volume, err error) {
	return v, c.call(ctx, http.MethodPost, "/v1/trash/"+url.PathEscape(name)+"/restore", r, &v)
}

// PurgeVolume makes a deletion final.
func (c *Client) PurgeVolume(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/trash/"+url.PathEscape(name), nil, nil)
}
