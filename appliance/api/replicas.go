package api

import (
	"context"
	"net/http"
	"net/url"
)

// NewReplica is the body of POST /v1/volumes/NAME/replicas. Either Node, Instead or Replicas is needed, so that a call that is
// repeated does nothing twice.
type NewReplica struct {
	Node     string `json:"node,omitempty"`     // name; empty: the one with the most free space
	Pool     string `json:"pool,omitempty"`     // path or id; empty: the one with the most free space
	Instead  string `json:"instead,omitempty"`  // the node whose replica leaves when the new one is in sync
	Replicas int    `json:"replicas,omitempty"` // how many there are to be in the end
	// OverSubscribe allows more than volumes.over_subscription of what the pool has.
	OverSubscribe bool `json:"over_subscribe,omitempty"`
}

// AddReplica gives a volume one more replica, or moves one.
func (c *Client) AddReplica(ctx context.Context, volume string, r NewReplica) (out Volume, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/replicas", r, &out)
}

// RemoveReplica takes a replica from a volume.
func (c *Client) RemoveReplica(ctx context.Context, volume, node string) error {
	return c.call(ctx, http.MethodDelete, "/v1/volumes/"+url.PathEscape(volume)+"/replicas/"+url.PathEscape(node), nil, nil)
}

// NewSize is the body of POST /v1/volumes/NAME/size.
type NewSize struct {
	Size          int64 `json:"size"`                     // bytes, a multiple of 4096, not below what the volume has
	OverSubscribe bool  `json:"over_subscribe,omitempty"` // as in NewReplica
}

// ResizeVolume makes a volume larger.
func (c *Client) ResizeVolume(ctx context.Context, volume string, s NewSize) (out Volume, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/size", s, &out)
}

// Drain is the body of POST /v1/nodes/NAME/drain: the replicas on the node, or in one pool of it, are to move to other nodes.
type Drain struct {
	Pool   string `json:"pool,omitempty"`   // path or id; empty: the whole node, which gives the leadership up too
	Cancel bool   `json:"cancel,omitempty"` // they may stay after all
}

// Drain empties a node or a pool, or calls that off.
func (c *Client) Drain(ctx context.Context, node string, d Drain) error {
	return c.call(ctx, http.MethodPost, "/v1/nodes/"+url.PathEscape(node)+"/drain", d, nil)
}

// replicaRoutes are the calls that change where replicas are.
func (s *Server) replicaRoutes() {
	b := s.backend
	s.handle("POST /v1/volumes/{name}/replicas", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var n NewReplica
		if err := decode(body, &n); err != nil {
			return nil, err
		}
		return b.AddReplica(ctx, request, r.PathValue("name"), n)
	})
	s.durabilityRoute()
	s.handle("POST /v1/volumes/{name}/size", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var n NewSize
		if err := decode(body, &n); err != nil {
			return nil, err
		}
		return b.ResizeVolume(ctx, request, r.PathValue("name"), n)
	})
	s.handle("POST /v1/nodes/{name}/drain", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var d Drain
		if err := decode(body, &d); err != nil {
			return nil, err
		}
		return done{true}, b.Drain(ctx, request, r.PathValue("name"), d)
	})
	s.handle("DELETE /v1/volumes/{name}/replicas/{node}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.RemoveReplica(ctx, request, r.PathValue("name"), r.PathValue("node"))
	})
}
