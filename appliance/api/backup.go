package api

import (
	"context"
	"net/http"
	"strconv"

	"pmsapp/cluster/catalog"
)

// backupRoutes: the answer is the backup itself, not JSON, and not passed on between nodes: each has the catalog.
func (s *Server) backupRoutes() {
	s.mux.HandleFunc("GET /v1/catalog", func(w http.ResponseWriter, r *http.Request) {
		b, err := s.backend.BackupCatalog(r.Context())
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Header().Set("Cache-Control", "no-store")
		w.Write(b)
	})
}

// raw is an answer that is not JSON.
type raw []byte

// BackupCatalog asks for a backup of the catalog.
func (c *Client) BackupCatalog(ctx context.Context) ([]byte, error) {
	var b raw
	err := c.call(ctx, http.MethodGet, "/v1/catalog", nil, &b)
	return b, err
}

// most is how long an answer may be, in bytes.
func most(out any) int64 {
	if _, ok := out.(*raw); ok {
		return catalog.MaxSnapshot
	}
	return maxAnswer
}
