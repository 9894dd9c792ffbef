package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Host is an initiator that LUNs are mapped to.
type Host struct {
	Name       string    `json:"name"`
	IQNs       []string  `json:"iqns"`
	CHAPUser   string    `json:"chap_user,omitempty"`
	MutualUser string    `json:"mutual_user,omitempty"`
	Paths      string    `json:"paths"` // "virtual", "nodes" or "redirect"
	LUNs       []Map     `json:"luns"`
	Sessions   []Session `json:"sessions"` // with all nodes that answer
}

// Session is a host's login at a node. Lengths are bytes.
type Session struct {
	Node          string    `json:"node"`
	Initiator     string    `json:"initiator"`
	Target        string    `json:"target"`
	Portal        string    `json:"portal"`
	Remote        string    `json:"remote"`
	Since         time.Time `json:"since"`
	CHAP          bool      `json:"chap"`
	HeaderDigest  bool      `json:"header_digest"`
	DataDigest    bool      `json:"data_digest"`
	ImmediateData bool      `json:"immediate_data"`
	InitialR2T    bool      `json:"initial_r2t"`
	FirstBurst    int       `json:"first_burst"`
	MaxBurst      int       `json:"max_burst"`
	Commands      int       `json:"commands"` // under way
	Waits         Waits     `json:"waits"`
}

// Waits is what a session's commands wait for, each counted once.
type Waits struct {
	Volume        int     `json:"volume"`         // they are being carried out
	Data          int     `json:"data"`           // of the host
	Order         int     `json:"order"`          // earlier commands
	Memory        int     `json:"memory"`         // that commands of all sessions share
	Answers       int     `json:"answers"`        // the host to take them
	OldestSeconds float64 `json:"oldest_seconds"` // since the oldest of them came
}

// NewHost is the body of POST /v1/hosts.
type NewHost struct {
	Name         string   `json:"name"`
	IQNs         []string `json:"iqns"`
	CHAPUser     string   `json:"chap_user,omitempty"`
	CHAPSecret   string   `json:"chap_secret,omitempty"`
	MutualUser   string   `json:"mutual_user,omitempty"`
	MutualSecret string   `json:"mutual_secret,omitempty"`
	Paths        string   `json:"paths,omitempty"` // by which portals it comes: "virtual" (the default), "nodes" or "redirect"
}

// Map is a volume as a LUN of a host.
type Map struct {
	Volume   string   `json:"volume"`
	Host     string   `json:"host"`
	LUN      uint16   `json:"lun"`
	ReadOnly bool     `json:"read_only"`
	Target   string   `json:"target"`
	Portals  []string `json:"portals"`
}

// NewMap is the body of POST /v1/maps.
type NewMap struct {
	Volume   string  `json:"volume"`
	Host     string  `json:"host"`
	LUN      *uint16 `json:"lun,omitempty"` // the lowest free one from 1 if absent
	ReadOnly bool    `json:"read_only,omitempty"`
}

// Verified is what GET /v1/luns/verify has found.
type Verified struct {
	Nodes   []string   `json:"nodes"`   // that have answered
	Portals []string   `json:"portals"` // that were logged in to
	LUNs    []Identity `json:"luns"`
	Faults  []string   `json:"faults"` // empty: hosts see the same at all portals
}

// Identity is what hosts know a LUN by.
type Identity struct {
	Volume string `json:"volume"`
	Serial string `json:"serial"`
	NAA    string `json:"naa"`
	T10    string `json:"t10"`
}

// Hosts lists the hosts.
func (c *Client) Hosts(ctx context.Context) (out []Host, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/hosts", nil, &out)
}

// AddHost adds a host.
func (c *Client) AddHost(ctx context.Context, h NewHost) (out Host, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/hosts", h, &out)
}

// RemoveHost takes a host out that no LUN is mapped to.
func (c *Client) RemoveHost(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/hosts/"+url.PathEscape(name), nil, nil)
}

// Maps lists what is mapped to hosts.
func (c *Client) Maps(ctx context.Context) (out []Map, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/maps", nil, &out)
}

// MapLUN makes a volume a LUN of a host.
func (c *Client) MapLUN(ctx context.Context, m NewMap) (out Map, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/maps", m, &out)
}

// UnmapLUN ends that.
func (c *Client) UnmapLUN(ctx context.Context, volume, host string) error {
	return c.call(ctx, http.MethodDelete, "/v1/maps/"+url.PathEscape(volume)+"/"+url.PathEscape(host), nil, nil)
}

// VerifyLUNs compares what hosts see at all portals.
func (c *Client) VerifyLUNs(ctx context.Context) (out Verified, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/luns/verify", nil, &out)
}

// hostRoutes are the calls about hosts and what is mapped to them.
func (s *Server) hostRoutes() {
	b := s.backend
	s.handle("GET /v1/hosts", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) { return b.Hosts(ctx) })
	s.handle("POST /v1/hosts", leader, with(b.AddHost))
	s.handle("DELETE /v1/hosts/{name}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.RemoveHost(ctx, request, r.PathValue("name"))
	})
	s.handle("GET /v1/maps", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) { return b.Maps(ctx) })
	s.handle("POST /v1/maps", leader, with(b.MapLUN))
	s.handle("DELETE /v1/maps/{volume}/{host}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.UnmapLUN(ctx, request, r.PathValue("volume"), r.PathValue("host"))
	})
	s.handle("GET /v1/luns/verify", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) { return b.VerifyLUNs(ctx) })
}
