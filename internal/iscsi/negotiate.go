package iscsi

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrNegotiation is returned when the other end broke the rules of negotiation, or when there is no result that both
// ends accept.
var ErrNegotiation = errors.New("iscsi: negotiation failed")

// DigestWish says whether an end wants CRC32C.
type DigestWish uint8

const (
	DigestNever  DigestWish = iota // None only
	DigestAny                      // both are possible; an initiator prefers None
	DigestPrefer                   // both are possible; an initiator prefers CRC32C
	DigestAlways                   // CRC32C only: a login without it fails
)

// Wish is what one end would have of a session. Lengths are in bytes, times in seconds.
type Wish struct {
	HeaderDigest  DigestWish
	DataDigest    DigestWish
	InitialR2T    bool
	ImmediateData bool
	MaxRecv       int // the longest data segment that this end receives, 512 to 2^24-1
	MaxBurst      int // 512 to 2^24-1
	FirstBurst    int // 512 to MaxBurst
	MaxR2T        int // 1 to 65535
	Time2Wait     int // 0 to 3600
	Time2Retain   int // 0 to 3600
}

// DefaultWish is what pmsApp's ends ask for: ESXi's lengths, no digests, unsolicited data.
func DefaultWish() Wish {
	return Wish{
		HeaderDigest: DigestAny, DataDigest: DigestAny,
		ImmediateData: true,
		MaxRecv:       256 << 10, MaxBurst: 1 << 20, FirstBurst: 256 << 10,
		MaxR2T: 8, Time2Wait: 2,
	}
}

// Params is the result of a negotiation. MaxConnections is 1, ErrorRecoveryLevel 0, and data come in order, always.
type Params struct {
	HeaderDigest  bool
	DataDigest    bool
	InitialR2T    bool
	ImmediateData bool
	MaxRecv       int // what this end declared: the longest data segment that it gets
	MaxSend       int // what the other end declared: the longest data segment that it may be sent
	MaxBurst      int
	FirstBurst    int // at most MaxBurst
	MaxR2T        int
	Time2Wait     int
	Time2Retain   int
}

// defaultParams are in force where nothing is negotiated (13).
func defaultParams(maxRecv int) Params {
	return Params{
		InitialR2T: true, ImmediateData: true, MaxRecv: maxRecv, MaxSend: LoginMaxData, MaxBurst: 262144, FirstBurst: 65536,
		MaxR2T: 1, Time2Wait: 2, Time2Retain: 20,
	}
}

// maxUnknown bounds the answers to keys that nobody knows.
const maxUnknown = 32

// negotiation is the state of one end in the operational negotiation.
type negotiation struct {
	wish      Wish
	discovery bool
	params    Params
	offered   [kCount]bool // by this end, and not answered yet
	settled   [kCount]bool // there is a result; the other end has declared its value
	declared  bool         // this end's MaxRecv
	unknown   int          // keys answered NotUnderstood
}

func newNegotiation(w Wish, discovery bool) *negotiation {
	return &negotiation{wish: w, discovery: discovery, params: defaultParams(w.MaxRecv)}
}

// offerAll makes an initiator's offers.
func (n *negotiation) offerAll() (out []Pair) {
	for k := range kOffered {
		if s := specs(k); !n.settled[k] && !n.offered[k] && (s.discovery || !n.discovery) {
			out = append(out, n.offer(k))
		}
	}
	return out
}

// offerNeeded makes the offers without which a target could not live: of keys that the initiator did not offer and whose
// defaults are not acceptable.
func (n *negotiation) offerNeeded() (out []Pair) {
	need := func(k int, is bool) {
		if is && !n.settled[k] && !n.offered[k] && (specs(k).discovery || !n.discovery) {
			out = append(out, n.offer(k))
		}
	}
	need(kHeaderDigest, n.wish.HeaderDigest == DigestAlways)
	need(kDataDigest, n.wish.DataDigest == DigestAlways)
	need(kImmediateData, !n.wish.ImmediateData)
	need(kMaxBurst, n.wish.MaxBurst < n.params.MaxBurst)
	need(kFirstBurst, n.wish.FirstBurst < n.params.FirstBurst)
	return out
}

func (n *negotiation) offer(k int) Pair {
	s := specs(k)
	if s.rule == declared {
		n.declared = true
		return Pair{s.name, n.own(k)}
	}
	n.offered[k] = true
	return Pair{s.name, n.own(k)}
}

// open tells whether an offer of this end waits for its answer.
func (n *negotiation) open() bool {
	for _, o := range n.offered {
		if o {
			return true
		}
	}
	return false
}

// own is this end's value of a key as text.
func (n *negotiation) own(k int) string {
	switch k {
	case kHeaderDigest:
		return strings.Join(digestList(n.wish.HeaderDigest), ",")
	case kDataDigest:
		return strings.Join(digestList(n.wish.DataDigest), ",")
	case kTaskReporting:
		return "RFC3720"
	case kInitialR2T:
		return yesNo(n.wish.InitialR2T)
	case kImmediateData:
		return yesNo(n.wish.ImmediateData)
	case kPDUInOrder, kSequenceInOrder:
		return valueYes
	}
	return strconv.Itoa(n.ownNumber(k))
}

func (n *negotiation) ownNumber(k int) int {
	switch k {
	case kMaxRecv:
		return n.wish.MaxRecv
	case kMaxBurst:
		return n.wish.MaxBurst
	case kFirstBurst:
		return n.wish.FirstBurst
	case kMaxR2T:
		return n.wish.MaxR2T
	case kTime2Wait:
		return n.wish.Time2Wait
	case kTime2Retain:
		return n.wish.Time2Retain
	case kMaxConnections, kProtocolLevel:
		return 1
	}
	return 0 // kErrorLevel
}

// receive takes a key from the other end and returns the answer, if one is due.
func (n *negotiation) receive(p Pair) (answer []Pair, err error) {
	k := keyIndex(p.Key)
	if k < 0 {
		if n.unknown++; n.unknown > maxUnknown {
			return nil, fmt.Errorf("more than %d unknown keys: %w", maxUnknown, ErrNegotiation)
		}
		return []Pair{{p.Key, valueNotUnderstood}}, nil
	}
	s := specs(k)
	if n.offered[k] {
		n.offered[k] = false
		n.settled[k] = true
		return nil, n.answered(k, s, p.Value)
	}
	if n.settled[k] {
		return nil, fmt.Errorf("%s was negotiated already: %w", p.Key, ErrNegotiation)
	}
	n.settled[k] = true
	if n.discovery && !s.discovery {
		return []Pair{{p.Key, valueIrrelevant}}, nil
	}
	value := n.answer(k, s, p.Value)
	if value == "" {
		return nil, nil
	}
	if value == valueReject && s.rule != refused && s.rule != wrongHere {
		// What follows cannot be what either end wants: an initiator that goes on with defaults is told by the T bit.
		if k == kHeaderDigest && n.wish.HeaderDigest == DigestAlways || k == kDataDigest && n.wish.DataDigest == DigestAlways {
			return nil, fmt.Errorf("%s=%s, and CRC32C is required: %w", p.Key, p.Value, ErrNegotiation)
		}
		if s.rule == declared {
			return nil, fmt.Errorf("%s=%s: %w", p.Key, p.Value, ErrNegotiation)
		}
	}
	return []Pair{{p.Key, value}}, nil
}

// answer is the result for a key that the other end offered; it is recorded. An empty text means that none is due.
func (n *negotiation) answer(k int, s keySpec, offer string) string {
	switch s.rule {
	case byList:
		own := strings.Split(n.own(k), ",")
		for v := range strings.SplitSeq(offer, ",") {
			for _, o := range own {
				if v == o {
					n.set(k, v, 0)
					return v
				}
			}
		}
		return valueReject
	case byAnd, byOr:
		if offer != valueYes && offer != valueNo {
			return valueReject
		}
		own, theirs := n.own(k) == valueYes, offer == valueYes
		result := own && theirs
		if s.rule == byOr {
			result = own || theirs
		}
		n.set(k, yesNo(result), 0)
		return yesNo(result)
	case byMin, byMax, declared:
		v, ok := number(offer, s)
		if !ok {
			return valueReject
		}
		switch s.rule {
		case byMin:
			v = min(v, n.ownNumber(k))
		case byMax:
			v = max(v, n.ownNumber(k))
		}
		n.set(k, "", v)
		if s.rule == declared {
			return ""
		}
		return strconv.Itoa(v)
	case alwaysNo:
		return valueNo
	}
	return valueReject
}

// answered takes the other end's answer to an offer of this end.
func (n *negotiation) answered(k int, s keySpec, value string) error {
	fail := func() error { return fmt.Errorf("%s was answered %q: %w", s.name, value, ErrNegotiation) }
	if value == valueReject || value == valueIrrelevant || value == valueNotUnderstood {
		// The default holds then.
		switch {
		case k == kHeaderDigest && n.wish.HeaderDigest == DigestAlways,
			k == kDataDigest && n.wish.DataDigest == DigestAlways,
			k == kImmediateData && !n.wish.ImmediateData,
			k == kMaxBurst && n.wish.MaxBurst < n.params.MaxBurst,
			k == kFirstBurst && n.wish.FirstBurst < n.params.FirstBurst:
			return fail()
		}
		return nil
	}
	switch s.rule {
	case byList:
		for o := range strings.SplitSeq(n.own(k), ",") {
			if o == value {
				n.set(k, value, 0)
				return nil
			}
		}
		return fail()
	case byAnd, byOr:
		own := n.own(k) == valueYes
		if value != valueYes && value != valueNo ||
			s.rule == byAnd && !own && value == valueYes || s.rule == byOr && own && value == valueNo {
			return fail()
		}
		n.set(k, value, 0)
		return nil
	}
	v, ok := number(value, s)
	if !ok || s.rule == byMin && v > n.ownNumber(k) || s.rule == byMax && v < n.ownNumber(k) {
		return fail()
	}
	n.set(k, "", v)
	return nil
}

// set records a result.
func (n *negotiation) set(k int, text string, v int) {
	p := &n.params
	switch k {
	case kHeaderDigest:
		p.HeaderDigest = text == valueCRC32C
	case kDataDigest:
		p.DataDigest = text == valueCRC32C
	case kInitialR2T:
		p.InitialR2T = text == valueYes
	case kImmediateData:
		p.ImmediateData = text == valueYes
	case kMaxRecv:
		p.MaxSend = v
	case kMaxBurst:
		p.MaxBurst = v
	case kFirstBurst:
		p.FirstBurst = v
	case kMaxR2T:
		p.MaxR2T = v
	case kTime2Wait:
		p.Time2Wait = v
	case kTime2Retain:
		p.Time2Retain = v
	}
}

// result is what was agreed.
func (n *negotiation) result() (Params, error) {
	p := n.params
	if n.wish.HeaderDigest == DigestAlways && !p.HeaderDigest || n.wish.DataDigest == DigestAlways && !p.DataDigest {
		return p, fmt.Errorf("CRC32C is required: %w", ErrNegotiation)
	}
	p.FirstBurst = min(p.FirstBurst, p.MaxBurst)
	if !n.declared {
		p.MaxRecv = LoginMaxData // the default is what the other end counts on
	}
	return p, nil
}

func digestList(w DigestWish) []string {
	switch w {
	case DigestAny:
		return []string{valueNone, valueCRC32C}
	case DigestPrefer:
		return []string{valueCRC32C, valueNone}
	case DigestAlways:
		return []string{valueCRC32C}
	}
	return []string{valueNone}
}

func yesNo(b bool) string {
	if b {
		return valueYes
	}
	return valueNo
}

// number reads a number within the range of s: decimal, or hexadecimal after 0x (6.1).
func number(text string, s keySpec) (int, bool) {
	base, digits := 10, text
	if len(text) > 2 && (text[:2] == "0x" || text[:2] == "0X") {
		base, digits = 16, text[2:]
	}
	v, err := strconv.ParseUint(digits, base, 32)
	if err != nil || int(v) < s.low || int(v) > s.high {
		return 0, false
	}
	return int(v), true
}
