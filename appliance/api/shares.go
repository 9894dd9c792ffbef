package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Share is a volume with a file tree. Sizes are bytes.
type Share struct {
	Volume
	Path   string      `json:"path"`  // to mount
	Open   bool        `json:"open"`  // the leader answers its clients
	Used   int64       `json:"used"`  // by files
	Files  int         `json:"files"` // inodes
	Rules  []ShareRule `json:"rules"` // empty: it is not exported
	Usages []Usage     `json:"usages,omitempty"`
	// Servers are where clients find it: the virtual address, or, without one, each node. Warnings tell why they may not.
	Servers  []ShareServer `json:"servers"`
	Warnings []string      `json:"warnings,omitempty"`
}

// ShareServer is an address at which shares are served.
type ShareServer struct {
	Host    string `json:"host"`
	Port    uint16 `json:"port"`    // of NFS and MOUNT
	Portmap bool   `json:"portmap"` // tells clients that port
}

// MountCommand is what mounts a share on Linux. Without portmap its locks are the client's own.
func (s ShareServer) MountCommand(path string) string {
	options := "vers=3"
	if !s.Portmap {
		options += fmt.Sprintf(",proto=tcp,port=%d,mountproto=tcp,mountport=%d,nolock", s.Port, s.Port)
	}
	host := s.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("mount -t nfs -o %s %s:%s DIRECTORY", options, host, path)
}

// URL is a share's for libnfs.
func (s ShareServer) URL(path string) string {
	host := s.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if s.Portmap {
		return fmt.Sprintf("nfs://%s%s", host, path)
	}
	return fmt.Sprintf("nfs://%s%s?nfsport=%d&mountport=%d", host, path, s.Port, s.Port)
}

// Usage is what an entry of a share's root takes, with all below it.
type Usage struct {
	Name  string `json:"name"`
	Used  int64  `json:"used"`
	Files int64  `json:"files"`
}

// ShareRule says what clients at some addresses may do. The most specific rule that contains an address counts.
type ShareRule struct {
	Client   string `json:"client"` // an address, or a prefix as in 192.0.2.0/24
	ReadOnly bool   `json:"read_only,omitempty"`
	Squash   string `json:"squash,omitempty"` // "none", "root" (the default) or "all"
	AnonUID  uint32 `json:"anon_uid"`
	AnonGID  uint32 `json:"anon_gid"`
}

// Shares returns all shares.
func (c *Client) Shares(ctx context.Context) (out []Share, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/shares", nil, &out)
}

// Share returns one, with what its top-level directories take.
func (c *Client) Share(ctx context.Context, name string) (out Share, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/shares/"+url.PathEscape(name), nil, &out)
}

// CreateShare makes a share. Logical is not used.
func (c *Client) CreateShare(ctx context.Context, v NewVolume) (out Share, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/shares", v, &out)
}

// DeleteShare deletes a share that is not exported, with its files: to the trash, or for good.
func (c *Client) DeleteShare(ctx context.Context, name string, purge bool) error {
	path := "/v1/shares/" + url.PathEscape(name)
	if purge {
		path += "?purge=1"
	}
	return c.call(ctx, http.MethodDelete, path, nil, nil)
}

// ExportShare adds a rule, or replaces the one for the same clients.
func (c *Client) ExportShare(ctx context.Context, name string, r ShareRule) (out Share, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/shares/"+url.PathEscape(name)+"/rules", r, &out)
}

// UnexportShare takes the rule for a client away, or all if client is empty.
func (c *Client) UnexportShare(ctx context.Context, name, client string) error {
	return c.call(ctx, http.MethodDelete, "/v1/shares/"+url.PathEscape(name)+"/rules?client="+url.QueryEscape(client), nil, nil)
}

// ShareBackend is a Backend's part for shares.
type ShareBackend interface {
	Shares(ctx context.Context) ([]Share, error)
	Share(ctx context.Context, name string) (Share, error)
	CreateShare(ctx context.Context, request string, v NewVolume) (Share, error)
	DeleteShare(ctx context.Context, request, name string, purge bool) error
	ExportShare(ctx context.Context, request, name string, r ShareRule) (Share, error)
	UnexportShare(ctx context.Context, request, name, client string) error
}

// shareRoutes are the calls about shares.
func (s *Server) shareRoutes() {
	b := s.backend
	s.handle("GET /v1/shares", leader, func(ctx context.Context, _ *http.Request, _ string, _ []byte) (any, error) {
		return b.Shares(ctx)
	})
	s.handle("GET /v1/shares/{name}", leader, func(ctx context.Context, r *http.Request, _ string, _ []byte) (any, error) {
		return b.Share(ctx, r.PathValue("name"))
	})
	s.handle("POST /v1/shares", leader, with(b.CreateShare))
	s.handle("DELETE /v1/shares/{name}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.DeleteShare(ctx, request, r.PathValue("name"), r.URL.Query().Get("purge") != "")
	})
	s.handle("POST /v1/shares/{name}/rules", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var rule ShareRule
		if err := decode(body, &rule); err != nil {
			return nil, err
		}
		return b.ExportShare(ctx, request, r.PathValue("name"), rule)
	})
	s.handle("DELETE /v1/shares/{name}/rules", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.UnexportShare(ctx, request, r.PathValue("name"), r.URL.Query().Get("client"))
	})
}
