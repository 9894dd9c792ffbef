package api

import (
	"context"
	"net/http"
	"strconv"
)

// done is the answer to a call that has nothing to tell.
type done struct {
	Done bool `json:"done"`
}

// routes is the whole interface.
func (s *Server) routes() {
	b := s.backend
	s.handle("GET /v1/status", anywhere, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		if forwarded, _ := ctx.Value(forwardedKey{}).(bool); !b.Leading() && !forwarded && r.URL.Query().Get("local") == "" {
			// The leader knows most; without one this node tells what it knows.
			if reply, err := b.Forward(ctx, "", Call{Method: r.Method, Path: r.URL.RequestURI()}); err == nil && reply.Status == http.StatusOK {
				return reply, nil
			}
		}
		return b.Status(ctx)
	})
	s.handle("GET /v1/events", anywhere, func(ctx context.Context, r *http.Request, _ string, _ []byte) (any, error) {
		after, err := number(r, "after", 0)
		if err != nil {
			return nil, err
		}
		limit, err := number(r, "limit", 100)
		if err != nil {
			return nil, err
		}
		events, err := b.Events(ctx, after, int(min(limit, 10000)))
		if events == nil {
			events = []Event{}
		}
		return events, err
	})
	s.handle("DELETE /v1/nodes/{name}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.RemoveNode(ctx, request, r.PathValue("name"))
	})
	s.handle("POST /v1/tokens", leader, with(b.NewToken))
	s.handle("POST /v1/pools", asked, with(b.AddPool))
	s.handle("POST /v1/volumes", leader, with(b.CreateVolume))
	s.handle("DELETE /v1/volumes/{name}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.DeleteVolume(ctx, request, r.PathValue("name"), r.URL.Query().Get("purge") != "")
	})
	s.trashRoutes()
	s.forceRoutes()
	s.backupRoutes()
	s.handle("POST /v1/volumes/{name}/scrub", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var v NewScrub
		if err := decode(body, &v); err != nil {
			return nil, err
		}
		return b.Scrub(ctx, request, r.PathValue("name"), v)
	})
	s.handle("POST /v1/volumes/{name}/resync", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var v Resync
		if err := decode(body, &v); err != nil {
			return nil, err
		}
		return done{true}, b.Resync(ctx, request, r.PathValue("name"), v)
	})
	s.copyRoutes()
	s.replicaRoutes()
	s.shareRoutes()
	s.handle("POST /v1/luns", leader, with(b.Export))
	s.handle("DELETE /v1/luns/{volume}", leader, func(ctx context.Context, r *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.Unexport(ctx, request, r.PathValue("volume"))
	})
	s.hostRoutes()
	s.handle("POST /v1/leader/transfer", leader, with(func(ctx context.Context, request string, t Transfer) (done, error) {
		return done{true}, b.Transfer(ctx, request, t)
	}))
	s.handle("POST /v1/cluster/shutdown", leader, func(ctx context.Context, _ *http.Request, request string, _ []byte) (any, error) {
		return done{true}, b.ShutdownCluster(ctx, request)
	})
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.writeJSON(w, http.StatusNotFound, envelope{Errorf(ErrNotFound, "docs/OPERATIONS.md lists the calls",
			"there is no call %s %s", r.Method, r.URL.Path)})
	})
}

// with makes a handler of a method that takes a body and gives an answer.
func with[In, Out any](f func(context.Context, string, In) (Out, error)) handler {
	return func(ctx context.Context, _ *http.Request, request string, body []byte) (any, error) {
		var in In
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return f(ctx, request, in)
	}
}

func number(r *http.Request, key string, otherwise uint64) (uint64, error) {
	s := r.URL.Query().Get(key)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, Errorf(ErrInvalid, "", "%s: %q is not a number", key, s)
	}
	return n, nil
}
