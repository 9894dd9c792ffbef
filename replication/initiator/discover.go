package initiator

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"pmsapp/internal/iscsi"
)

// Found is a target that discovery has found.
type Found struct {
	Name    string
	Portals []FoundPortal
}

// FoundPortal is an address of a target.
type FoundPortal struct {
	Addr  string // host:port
	Group int    // target portal group tag
}

const (
	maxDiscovery = 1 << 20 // bytes of an answer to SendTargets
	defaultPort  = "3260"
)

// Discover asks a portal for its targets (SendTargets=All, or of cfg.Target alone if that is not empty).
func Discover(ctx context.Context, cfg Config) ([]Found, error) {
	what := "All"
	if cfg.Target != "" {
		what, cfg.Target = cfg.Target, ""
	}
	s, err := dial(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	defer s.Logout(ctx)
	pairs, err := s.text(ctx, iscsi.Pair{Key: iscsi.KeySendTargets, Value: what})
	if err != nil {
		return nil, fmt.Errorf("SendTargets: %w", err)
	}
	return parseFound(pairs, cfg.Portal)
}

// text sends one text request and collects the answer, which may come in several parts.
func (s *Session) text(ctx context.Context, pairs ...iscsi.Pair) ([]iscsi.Pair, error) {
	collected := iscsi.Text{Max: maxDiscovery}
	var p controlPDU
	p.bhs.Init(iscsi.OpTextReq, iscsi.FlagFinal)
	p.bhs.SetTTT(iscsi.NoTag)
	p.data = iscsi.AppendText(nil, pairs...)
	for range maxDiscovery / 512 {
		s.mu.Lock()
		r, err := s.ask(ctx, p)
		if err != nil {
			return nil, err
		}
		if err := collected.Add(r.data); err != nil {
			return nil, err
		}
		if r.bhs.Final() && !r.bhs.Has(iscsi.FlagContinue) {
			return collected.Take()
		}
		if r.bhs.TTT() == iscsi.NoTag {
			return nil, protocolError("text response to be continued without a tag")
		}
		p.bhs.SetITT(r.bhs.ITT())
		p.bhs.SetTTT(r.bhs.TTT())
		p.bhs.SetLUN(r.bhs.LUN())
		p.data = nil
	}
	return nil, protocolError("text response without end")
}

// parseFound reads the answer to SendTargets (RFC 7143, appendix C). A target without an address is at the portal that
// was asked.
func parseFound(pairs []iscsi.Pair, asked string) ([]Found, error) {
	var found []Found
	for _, p := range pairs {
		switch p.Key {
		case iscsi.KeyTargetName:
			found = append(found, Found{Name: p.Value})
		case iscsi.KeyTargetAddress:
			if len(found) == 0 {
				return nil, protocolError("an address before the first target")
			}
			portal, err := parsePortal(p.Value)
			if err != nil {
				return nil, err
			}
			t := &found[len(found)-1]
			t.Portals = append(t.Portals, portal)
		}
	}
	for i := range found {
		if len(found[i].Portals) == 0 {
			found[i].Portals = []FoundPortal{{Addr: asked, Group: 1}}
		}
	}
	return found, nil
}

// parsePortal reads domainname[:port][,portal-group-tag].
func parsePortal(s string) (FoundPortal, error) {
	addr, tag, tagged := strings.Cut(s, ",")
	p := FoundPortal{Addr: addr, Group: 1}
	if tagged {
		n, err := strconv.ParseUint(tag, 0, 16)
		if err != nil {
			return p, protocolError("portal group %.20q", tag)
		}
		p.Group = int(n)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		p.Addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
	}
	return p, nil
}
