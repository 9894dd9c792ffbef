package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Names is who logs in, and where to.
type Names struct {
	Initiator string // InitiatorName
	Alias     string // InitiatorAlias, or empty
	Target    string // TargetName; may be empty for discovery
	Discovery bool
	ISID      ISID
	TSIH      uint16 // 0 for a new session
	CID       uint16
	Vendor    []Pair // vendor keys that have come so far
}

// Auth says how an initiator must prove who it is.
type Auth struct {
	// Initiator is what the initiator must prove; nobody need prove anything if the name is empty.
	Initiator Credentials
	// Own is what the target proves if the initiator asks for it. Without it such a login fails.
	Own Credentials
}

// TargetLoginConfig is what a target's end of a login needs.
type TargetLoginConfig struct {
	Wish        Wish
	PortalGroup uint16
	Rand        io.Reader // challenges come from here; crypto/rand.Reader
	// Auth is asked once, when the names are known. A status other than LoginOK refuses the login.
	Auth func(Names) (Auth, LoginStatus)
}

// TargetLogin is the target's end of a login. It is pure: each request gives one response.
type TargetLogin struct {
	cfg   TargetLoginConfig
	names Names
	auth  Auth
	neg   *negotiation

	first     BHS // the first request
	started   bool
	named     bool
	grouped   bool
	stage     Stage
	steps     int
	in        Text
	out       loginText
	transit   bool // when out is sent, go to next
	next      Stage
	finishing bool

	method     bool // AuthMethod was answered
	challenge  *challenger
	proved     bool
	params     Params
	request    BHS // the one being answered
	finalPairs []Pair
}

// NewTargetLogin returns the target's end of a login that has not begun.
func NewTargetLogin(cfg TargetLoginConfig) *TargetLogin {
	return &TargetLogin{cfg: cfg, in: Text{Max: maxLoginText}}
}

// LoginStep is what a response of TargetLogin means.
type LoginStep uint8

const (
	// LoginGoesOn: send the response and wait for the next request.
	LoginGoesOn LoginStep = iota + 1
	// LoginReady: all is agreed. There is no response yet: the caller decides, and gets it from Accept or Refuse.
	LoginReady
	// LoginFailed: send the response and close the connection.
	LoginFailed
)

// Request takes a login request and returns the response to it, and what to do then.
func (l *TargetLogin) Request(h *BHS, data []byte) (LoginPDU, LoginStep) {
	l.request = *h
	status, err := l.take(h, data)
	if status != LoginOK || err != nil {
		if status == LoginOK {
			status = statusOf(err)
		}
		return l.Refuse(status, nil), LoginFailed
	}
	if l.finishing {
		return LoginPDU{}, LoginReady
	}
	return l.respond(), LoginGoesOn
}

// Names returns who logs in; valid once Auth was asked.
func (l *TargetLogin) Names() Names { return l.names }

// Params returns what was agreed; valid after LoginReady.
func (l *TargetLogin) Params() Params { return l.params }

// User is the name that the initiator has proved by CHAP, or empty.
func (l *TargetLogin) User() string {
	if l.proved {
		return l.auth.Initiator.Name
	}
	return ""
}

// Accept returns the last response of a login, with keys of the vendor (2 KiB at most). Vendor keys of the initiator that are not among
// them are answered NotUnderstood.
func (l *TargetLogin) Accept(tsih uint16, keys []Pair) LoginPDU {
	pairs := append(l.finalPairs, keys...)
	for _, p := range l.names.Vendor {
		if _, answered := Lookup(pairs, p.Key); !answered {
			pairs = append(pairs, Pair{p.Key, valueNotUnderstood})
		}
	}
	l.out.rest = AppendText(nil, pairs...)
	pdu := l.respond()
	pdu.BHS.SetTSIH(tsih)
	return pdu
}

// Refuse returns the response that ends a login without success, with keys of the vendor.
func (l *TargetLogin) Refuse(status LoginStatus, keys []Pair) LoginPDU {
	var p LoginPDU
	p.BHS.Init(OpLoginResp, 0)
	p.BHS.SetStages(l.request.CSG(), 0, false, false)
	l.identify(&p.BHS)
	p.BHS.SetLoginStatus(status)
	p.Data = AppendText(nil, keys...)
	if len(p.Data) > LoginMaxData {
		p.Data = nil
	}
	return p
}

func (l *TargetLogin) identify(h *BHS) {
	h.SetISID(l.request.ISID())
	h.SetTSIH(l.request.TSIH())
	h.SetITT(l.request.ITT())
}

// respond makes the next response of what is in out.
func (l *TargetLogin) respond() LoginPDU {
	data, more := l.out.next()
	var p LoginPDU
	p.BHS.Init(OpLoginResp, 0)
	l.identify(&p.BHS)
	transit := l.transit && !more
	p.BHS.SetStages(l.stage, l.next, transit, more)
	p.Data = data
	if transit {
		l.stage, l.transit = l.next, false
	}
	return p
}

// take does what a request asks for, and leaves the answer in out, transit and finishing.
func (l *TargetLogin) take(h *BHS, data []byte) (LoginStatus, error) {
	l.steps++
	if h.Opcode() != OpLoginReq || l.steps > maxLoginSteps || l.finishing {
		return LoginInvalid, nil
	}
	if h.VersionMin() > 0 {
		return LoginBadVersion, nil
	}
	if err := checkStages(h); err != nil {
		return 0, err
	}
	if !l.started {
		l.started, l.first, l.stage = true, *h, h.CSG()
		l.names.ISID, l.names.TSIH, l.names.CID = h.ISID(), h.TSIH(), h.CID()
	}
	f := &l.first
	if h.CSG() != l.stage || h.ISID() != f.ISID() || h.TSIH() != f.TSIH() || h.CID() != f.CID() || h.ITT() != f.ITT() {
		return LoginInitiatorError, nil
	}
	if len(l.out.rest) > 0 { // the rest of a long answer
		if len(data) > 0 || h.Has(FlagContinue) {
			return LoginInitiatorError, nil
		}
		return LoginOK, nil
	}
	if err := l.in.Add(data); err != nil {
		return 0, err
	}
	if h.Has(FlagContinue) {
		return LoginOK, nil
	}
	pairs, err := l.in.Take()
	if err != nil {
		return 0, err
	}
	return l.answer(h, pairs)
}

// answer takes a complete sequence of text.
func (l *TargetLogin) answer(h *BHS, pairs []Pair) (LoginStatus, error) {
	rest, err := l.takeNames(pairs)
	if err != nil {
		return 0, err
	}
	if !l.named {
		if status, err := l.identified(); status != LoginOK || err != nil {
			return status, err
		}
	}
	var out []Pair
	if !l.grouped && !l.names.Discovery {
		l.grouped = true
		out = append(out, Pair{KeyTargetPortalGroup, strconv.Itoa(int(l.cfg.PortalGroup))})
	}
	rest, security, err := l.security(rest)
	if err != nil {
		return 0, err
	}
	out = append(out, security...)
	for _, p := range rest {
		answer, err := l.neg.receive(p)
		if err != nil {
			return 0, err
		}
		out = append(out, answer...)
	}
	return l.move(h, out, len(security) > 0)
}

// move decides whether the next stage is reached.
func (l *TargetLogin) move(h *BHS, out []Pair, underWay bool) (LoginStatus, error) {
	transit, next := h.Has(FlagTransit), h.NSG()
	if l.auth.Initiator.Name != "" && !l.proved {
		if l.stage != StageSecurity || transit && !underWay {
			return LoginAuthFailed, nil
		}
		transit = false
	}
	if l.stage == StageOperational || next == StageFull && transit {
		if !l.neg.declared && l.stage == StageOperational {
			out = append(out, l.neg.offer(kMaxRecv))
		}
		if transit && next == StageFull {
			out = append(out, l.neg.offerNeeded()...)
			transit = !l.neg.open()
		}
	}
	l.transit, l.next = transit, next
	if transit && next == StageFull {
		params, err := l.neg.result()
		if err != nil {
			return 0, err
		}
		l.params, l.finishing, l.finalPairs = params, true, out
		return LoginOK, nil
	}
	l.out.rest = AppendText(nil, out...)
	return LoginOK, nil
}

// takeNames takes the keys that say who is there, and the vendor's, and returns the others.
func (l *TargetLogin) takeNames(pairs []Pair) (rest []Pair, err error) {
	for _, p := range pairs {
		n := &l.names
		switch p.Key {
		case KeyInitiatorName:
			err = declare(&n.Initiator, p, l.named)
		case KeyTargetName:
			err = declare(&n.Target, p, l.named)
		case KeyInitiatorAlias:
			n.Alias = p.Value
			if len(p.Value) > 255 {
				err = fmt.Errorf("%s: %w", p.Key, ErrLogin)
			}
		case KeySessionType:
			discovery := p.Value == valueDiscovery
			if !discovery && p.Value != valueNormal || l.named && discovery != n.Discovery {
				err = errSessionType
			}
			n.Discovery = discovery
		default:
			if strings.HasPrefix(p.Key, "X-") || strings.HasPrefix(p.Key, "X#") {
				n.Vendor, err = collectVendor(n.Vendor, p)
			} else {
				rest = append(rest, p)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// declare takes a name that must not change afterwards.
func declare(to *string, p Pair, fixed bool) error {
	if !validName(p.Value) || (fixed || *to != "") && *to != p.Value {
		return fmt.Errorf("%s: %w", p.Key, ErrLogin)
	}
	*to = p.Value
	return nil
}

// identified asks for the credentials once the names are there, which is with the first text.
func (l *TargetLogin) identified() (LoginStatus, error) {
	l.named = true
	if l.names.Initiator == "" || l.names.Target == "" && !l.names.Discovery {
		return LoginMissingParameter, nil
	}
	wish := l.cfg.Wish
	if l.names.Discovery { // anybody may have such a session, which needs no more
		wish.MaxRecv = min(wish.MaxRecv, LoginMaxData)
	}
	l.neg = newNegotiation(wish, l.names.Discovery)
	auth, status := l.cfg.Auth(l.names)
	l.auth = auth
	return status, nil
}

var (
	errSessionType = fmt.Errorf("session type: %w", ErrLogin)
	errUnauthentic = fmt.Errorf("authentication: %w", ErrAuth)
)

func statusOf(err error) LoginStatus {
	switch {
	case errors.Is(err, ErrAuth):
		return LoginAuthFailed
	case err == errSessionType:
		return LoginBadSessionType
	case errors.Is(err, ErrLogin), errors.Is(err, ErrNegotiation), errors.Is(err, ErrText):
		return LoginInitiatorError
	}
	return LoginTargetError
}

// security takes the keys of the security stage and returns the others, and the answers.
func (l *TargetLogin) security(pairs []Pair) (rest, out []Pair, err error) {
	got := map[string]string{}
	for _, p := range pairs {
		switch p.Key {
		case KeyAuthMethod, KeyCHAPAlgorithm, KeyCHAPIdentifier, KeyCHAPChallenge, KeyCHAPName, KeyCHAPResponse:
			if _, twice := got[p.Key]; twice || l.stage != StageSecurity {
				return nil, nil, fmt.Errorf("%s twice or too late: %w", p.Key, ErrLogin)
			}
			got[p.Key] = p.Value
		default:
			rest = append(rest, p)
		}
	}
	if offer, ok := got[KeyAuthMethod]; ok {
		p, err := l.chooseMethod(offer)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, p)
	}
	if offer, ok := got[KeyCHAPAlgorithm]; ok {
		pairs, err := l.startCHAP(offer)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, pairs...)
	}
	_, named := got[KeyCHAPName]
	_, response := got[KeyCHAPResponse]
	_, id := got[KeyCHAPIdentifier]
	_, challenge := got[KeyCHAPChallenge]
	if named || response || id || challenge {
		pairs, err := l.finishCHAP(got)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, pairs...)
	}
	return rest, out, nil
}

func (l *TargetLogin) chooseMethod(offer string) (Pair, error) {
	if l.method {
		return Pair{}, fmt.Errorf("%s again: %w", KeyAuthMethod, ErrLogin)
	}
	want := valueNone
	if l.auth.Initiator.Name != "" {
		want = valueCHAP
	}
	for v := range strings.SplitSeq(offer, ",") {
		if v == want {
			l.method = true
			return Pair{KeyAuthMethod, want}, nil
		}
	}
	return Pair{}, errUnauthentic
}

func (l *TargetLogin) startCHAP(offer string) ([]Pair, error) {
	if !l.method || l.challenge != nil || l.auth.Initiator.Name == "" {
		return nil, errUnauthentic
	}
	for v := range strings.SplitSeq(offer, ",") {
		if v == chapMD5 {
			c, err := newChallenger(l.cfg.Rand)
			if err != nil {
				return nil, err
			}
			l.challenge = c
			return append([]Pair{{KeyCHAPAlgorithm, chapMD5}}, c.pairs()...), nil
		}
	}
	return nil, errUnauthentic
}

func (l *TargetLogin) finishCHAP(got map[string]string) ([]Pair, error) {
	if l.challenge == nil || l.proved || len(got[KeyCHAPName]) > maxCHAPName {
		return nil, errUnauthentic
	}
	if err := l.challenge.verify(l.auth.Initiator, got[KeyCHAPName], got[KeyCHAPResponse]); err != nil {
		return nil, err
	}
	l.proved = true
	id, asked := got[KeyCHAPIdentifier]
	challenge, asked2 := got[KeyCHAPChallenge]
	if !asked && !asked2 {
		return nil, nil
	}
	if l.auth.Own.Name == "" {
		return nil, errUnauthentic
	}
	if bytes.Equal(l.auth.Own.Secret, l.auth.Initiator.Secret) {
		return nil, errSameSecret
	}
	return prove(l.auth.Own, id, challenge, l.challenge.challenge)
}
