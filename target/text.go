package target

import (
	"fmt"
	"strings"

	"pmsapp/internal/iscsi"
)

const (
	maxText     = 64 << 10 // bytes of one request, over all its PDUs
	maxTextTags = 1 << 16
)

// textState is a text negotiation in full feature phase: one at a time. Only the reader uses it.
type textState struct {
	in   iscsi.Text
	rest []byte // of the answer
	tag  uint32 // the transfer tag under which the next part is given out
	busy bool
}

// textRequest answers SendTargets (RFC 7143 appendix C). Nothing else can be negotiated in full feature phase here.
func (s *session) textRequest(h *iscsi.BHS, data []byte) error {
	x := &s.text
	if h.TTT() == iscsi.NoTag {
		*x = textState{in: iscsi.Text{Max: maxText}, tag: x.tag}
	} else if !x.busy || h.TTT() != x.tag {
		return s.rejectNow(h, iscsi.RejectProtocol)
	}
	if x.rest != nil {
		s.textResponse(h)
		return nil
	}
	if err := x.in.Add(data); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if h.Has(iscsi.FlagContinue) {
		s.textResponse(h)
		return nil
	}
	pairs, err := x.in.Take()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	x.rest = iscsi.AppendText([]byte{}, s.textAnswers(pairs)...)
	s.textResponse(h)
	return nil
}

// textResponse sends the next part of the answer: all of it, or as much as fits into a PDU; nothing while the request is
// not complete.
func (s *session) textResponse(h *iscsi.BHS) {
	x := &s.text
	a := new(iscsi.BHS)
	a.Init(iscsi.OpTextResp, 0)
	a.SetLUN(h.LUN())
	a.SetITT(h.ITT())
	part := x.rest[:min(len(x.rest), s.params.MaxSend)]
	more := len(part) < len(x.rest)
	if x.rest != nil && !more {
		a.SetFlags(iscsi.FlagFinal)
		a.SetTTT(iscsi.NoTag)
		*x = textState{tag: x.tag}
	} else {
		if more {
			a.SetFlags(iscsi.FlagContinue)
			x.rest = x.rest[len(part):]
		}
		x.busy = true
		x.tag = (x.tag + 1) % maxTextTags
		a.SetTTT(x.tag)
	}
	s.answer(a, part)
}

// textAnswers answers keys. A request has one SendTargets (RFC 7143 appendix C): others are rejected, for each may be a long answer.
func (s *session) textAnswers(pairs []iscsi.Pair) (out []iscsi.Pair) {
	asked := false
	for _, p := range pairs {
		if p.Key != iscsi.KeySendTargets {
			value := "Reject"
			if iscsi.IsVendorKey(p.Key) {
				value = "NotUnderstood"
			}
			out = append(out, iscsi.Pair{Key: p.Key, Value: value})
			continue
		}
		if asked || p.Value == "All" && !s.login.Discovery {
			out = append(out, iscsi.Pair{Key: p.Key, Value: "Reject"})
			continue
		}
		asked = true
		for _, d := range s.srv.cfg.Provider.Discover(s.login) {
			switch {
			case p.Value == "All", p.Value == d.Name, p.Value == "" && strings.EqualFold(d.Name, s.login.Target):
			default:
				continue
			}
			out = append(out, iscsi.Pair{Key: iscsi.KeyTargetName, Value: d.Name})
			for _, a := range d.Portals {
				out = append(out, iscsi.Pair{Key: iscsi.KeyTargetAddress, Value: fmt.Sprintf("%s,%d", a.Addr, a.Group)})
			}
		}
	}
	return out
}
