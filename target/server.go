package target

import (
	"fmt"
	"log/slog"

	"sync/atomic"
)

// Server serves targets on any number of listeners.
type Server struct {
	cfg      Config
	log      *slog.Logger
	tunables atomic.Pointer[Tunables]
}

// New returns a Server. It starts nothing.
func New(cfg Config) (*Server, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Group == 0 {
		cfg.Group = 1
	}
	if cfg.Tunables == (Tunables{}) {
		cfg.Tunables = DefaultTunables()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Provider == nil {
		return nil, fmt.Errorf("%w: no provider", ErrConfig)
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log}
	return s, s.Tune(cfg.Tunables)
}

// Tune changes the tunables; it takes effect at once.
func (s *Server) Tune(t Tunables) error {
	if err := t.Validate(); err != nil {
		return err
	}
	s.tunables.Store(&t)
	return nil
}
