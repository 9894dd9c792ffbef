package iscsi

import (
	"bytes"
	"fmt"
	"io"
)

// InitiatorLoginConfig is what an initiator's end of a login needs.
type InitiatorLoginConfig struct {
	Initiator string // InitiatorName
	Alias     string // InitiatorAlias; none if empty
	Target    string // TargetName; may be empty for discovery
	Discovery bool
	ISID      ISID
	CID       uint16
	Wish      Wish
	// Own is what the initiator proves by CHAP. With an empty name it asks for no authentication.
	Own Credentials
	// Peer is what the target must prove; asked for if the name is not empty. It needs Own.
	Peer   Credentials
	Vendor []Pair    // sent with the first request
	Rand   io.Reader // crypto/rand.Reader; used only with Peer
}

// InitiatorLogin is the initiator's end of a login. It is pure: each response gives the next request.
type InitiatorLogin struct {
	cfg       InitiatorLoginConfig
	neg       *negotiation
	stage     Stage
	steps     int
	in        Text
	out       loginText
	transit   bool
	step      chapStep
	challenge *challenger
	params    Params
	tsih      uint16
	keys      []Pair
}

// chapStep is where an initiator is in CHAP.
type chapStep uint8

const (
	chapMethod  chapStep = iota + 1 // AuthMethod offered
	chapOffered                     // CHAP_A offered
	chapProved                      // own proof sent
	chapDone
)

// NewInitiatorLogin returns the initiator's end of a login that has not begun.
func NewInitiatorLogin(cfg InitiatorLoginConfig) (*InitiatorLogin, error) {
	if !validName(cfg.Initiator) || cfg.Target == "" && !cfg.Discovery || len(cfg.Target) > maxName {
		return nil, fmt.Errorf("names of initiator and target: %w", ErrLogin)
	}
	if cfg.Peer.Name != "" && (cfg.Own.Name == "" || cfg.Rand == nil) {
		return nil, fmt.Errorf("mutual CHAP without credentials or random numbers: %w", ErrLogin)
	}
	if cfg.Peer.Name != "" && bytes.Equal(cfg.Own.Secret, cfg.Peer.Secret) {
		return nil, errSameSecret
	}
	return &InitiatorLogin{cfg: cfg, neg: newNegotiation(cfg.Wish, cfg.Discovery), in: Text{Max: maxLoginText}}, nil
}

// First returns the first request.
func (l *InitiatorLogin) First() LoginPDU {
	pairs := []Pair{{KeyInitiatorName, l.cfg.Initiator}}
	if l.cfg.Alias != "" {
		pairs = append(pairs, Pair{KeyInitiatorAlias, l.cfg.Alias})
	}
	if l.cfg.Target != "" {
		pairs = append(pairs, Pair{KeyTargetName, l.cfg.Target})
	}
	kind := valueNormal
	if l.cfg.Discovery {
		kind = valueDiscovery
	}
	pairs = append(pairs, Pair{KeySessionType, kind})
	pairs = append(pairs, l.cfg.Vendor...)
	if l.cfg.Own.Name != "" {
		l.stage, l.step = StageSecurity, chapMethod
		pairs = append(pairs, Pair{KeyAuthMethod, valueCHAP})
	} else {
		l.stage, l.transit = StageOperational, true
		pairs = append(pairs, l.neg.offerAll()...)
	}
	return l.send(pairs)
}

// Params returns what was agreed; valid when Response has said done.
func (l *InitiatorLogin) Params() Params { return l.params }

// TSIH is the session's identity that the target gave.
func (l *InitiatorLogin) TSIH() uint16 { return l.tsih }

// Keys returns all keys of the target that are not part of negotiation: vendor keys, TargetAlias and so on.
func (l *InitiatorLogin) Keys() []Pair { return l.keys }

// Response takes a login response. If the login is not done, next is the request to send. It returns a *LoginError when
// the target refused, otherwise ErrLogin, ErrNegotiation, ErrText, or ErrAuth when the target did not prove who it is.
func (l *InitiatorLogin) Response(h *BHS, data []byte) (next LoginPDU, done bool, err error) {
	if h.Opcode() != OpLoginResp {
		return next, false, fmt.Errorf("%s during login: %w", h.Opcode(), ErrLogin)
	}
	if status := h.LoginStatus(); status != LoginOK {
		keys, _ := ParseText(data)
		return next, false, &LoginError{Status: status, Keys: keys}
	}
	l.steps++
	if l.steps > maxLoginSteps {
		return next, false, fmt.Errorf("%d responses: %w", l.steps, ErrLogin)
	}
	if err := checkStages(h); err != nil {
		return next, false, err
	}
	if h.CSG() != l.stage {
		return next, false, fmt.Errorf("response of stage %d in stage %d: %w", h.CSG(), l.stage, ErrLogin)
	}
	if err := l.in.Add(data); err != nil {
		return next, false, err
	}
	if h.Has(FlagContinue) || len(l.out.rest) > 0 {
		if h.Has(FlagTransit) {
			return next, false, fmt.Errorf("transit within a sequence: %w", ErrLogin)
		}
		return l.request(), false, nil
	}
	pairs, err := l.in.Take()
	if err != nil {
		return next, false, err
	}
	out, err := l.takeKeys(pairs)
	if err != nil {
		return next, false, err
	}
	if h.Has(FlagTransit) {
		return l.transited(h, out)
	}
	return l.send(out), false, nil
}

// transited goes to the next stage.
func (l *InitiatorLogin) transited(h *BHS, out []Pair) (next LoginPDU, done bool, err error) {
	if !l.transit || len(out) > 0 {
		return next, false, fmt.Errorf("transit that was not asked for: %w", ErrLogin)
	}
	switch {
	case l.stage == StageSecurity && h.NSG() == StageOperational:
		if l.step != chapDone {
			return next, false, fmt.Errorf("transit before the target's proof: %w", ErrAuth)
		}
		l.stage = StageOperational
		return l.send(l.neg.offerAll()), false, nil
	case l.stage == StageOperational && h.NSG() == StageFull:
		l.tsih = h.TSIH()
		l.params, err = l.neg.result()
		return next, err == nil, err
	}
	return next, false, fmt.Errorf("transit to stage %d: %w", h.NSG(), ErrLogin)
}

// takeKeys takes the target's keys and returns what to send next.
func (l *InitiatorLogin) takeKeys(pairs []Pair) (out []Pair, err error) {
	chap := map[string]string{}
	for _, p := range pairs {
		switch {
		case p.Key == KeyTargetPortalGroup, p.Key == KeyTargetAlias, p.Key == KeyTargetAddress, IsVendorKey(p.Key):
			if len(l.keys) >= 64 {
				return nil, fmt.Errorf("too many keys: %w", ErrLogin)
			}
			l.keys = append(l.keys, p)
		case p.Key == KeyAuthMethod, p.Key == KeyCHAPAlgorithm, p.Key == KeyCHAPIdentifier,
			p.Key == KeyCHAPChallenge, p.Key == KeyCHAPName, p.Key == KeyCHAPResponse:
			if _, twice := chap[p.Key]; twice {
				return nil, fmt.Errorf("%s twice: %w", p.Key, ErrLogin)
			}
			chap[p.Key] = p.Value
		default:
			answer, err := l.neg.receive(p)
			if err != nil {
				return nil, err
			}
			out = append(out, answer...)
		}
	}
	if l.stage == StageSecurity {
		more, err := l.chap(chap)
		return append(out, more...), err
	}
	if len(chap) > 0 {
		return nil, fmt.Errorf("CHAP out of its stage: %w", ErrLogin)
	}
	return out, nil
}

// chap does the next step of authentication.
func (l *InitiatorLogin) chap(got map[string]string) ([]Pair, error) {
	switch l.step {
	case chapMethod:
		if got[KeyAuthMethod] != valueCHAP {
			return nil, fmt.Errorf("the target answered %s=%.20q: %w", KeyAuthMethod, got[KeyAuthMethod], ErrAuth)
		}
		l.step = chapOffered
		return []Pair{{KeyCHAPAlgorithm, chapMD5}}, nil
	case chapOffered:
		if got[KeyCHAPAlgorithm] != chapMD5 {
			return nil, fmt.Errorf("the target answered %s=%.20q: %w", KeyCHAPAlgorithm, got[KeyCHAPAlgorithm], ErrAuth)
		}
		out, err := prove(l.cfg.Own, got[KeyCHAPIdentifier], got[KeyCHAPChallenge], nil)
		if err != nil {
			return nil, err
		}
		l.step, l.transit = chapDone, true
		if l.cfg.Peer.Name != "" {
			l.step = chapProved
			if l.challenge, err = newChallenger(l.cfg.Rand); err != nil {
				return nil, err
			}
			out = append(out, l.challenge.pairs()...)
		}
		return out, nil
	case chapProved:
		if err := l.challenge.verify(l.cfg.Peer, got[KeyCHAPName], got[KeyCHAPResponse]); err != nil {
			return nil, err
		}
		l.step = chapDone
	}
	return nil, nil
}

// send begins to send text.
func (l *InitiatorLogin) send(pairs []Pair) LoginPDU {
	l.out.rest = AppendText(nil, pairs...)
	return l.request()
}

// request makes the next request of what is in out.
func (l *InitiatorLogin) request() LoginPDU {
	data, more := l.out.next()
	var p LoginPDU
	p.BHS.Init(OpLoginReq, 0)
	next := StageOperational
	if l.stage == StageOperational {
		next = StageFull
	}
	p.BHS.SetStages(l.stage, next, l.transit && !more, more)
	p.BHS.SetImmediate()
	p.BHS.SetISID(l.cfg.ISID)
	p.BHS.SetCID(l.cfg.CID)
	p.Data = data
	return p
}
