package remote

import (
	"context"
	"fmt"

	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
)

// submitLarge does a command that has an answer of any size or a payload, or is patient, from begin to end.
func (s *Session) submitLarge(act action, c *peer.Call) {
	places := s.places(act)
	places <- struct{}{}
	defer func() { <-places; c.Done(c) }()
	ctx := context.Background() // the session's end ends every exchange
	q := requestOf(act, c)
	if act == actReadMissed && len(c.Others) == 1 {
		q.nameBirth(c.Others[0].ID.Birth)
	}
	switch act {
	case actClear:
		c.Err = s.clear(ctx, q, c.Regions)
	case actCreate, actReset, actGrow:
		q.volume = c.Spec.Volume
		_, c.Err = s.exchange(ctx, q, appendSpec(nil, &c.Spec), 0)
	case actDelete:
		_, c.Err = s.exchange(ctx, q, nil, 0)
	case actReadMap:
		var body []byte
		if body, c.Err = s.ask(ctx, q); c.Err == nil {
			if c.Err = decodeMap(body, &c.Answer); c.Err != nil {
				c.Err = s.dead(c.Err)
			}
		}
	case actKnow:
		_, c.Err = s.exchange(ctx, q, appendOthers(nil, c.Others), 0)
	case actAddMissed, actDropMissed:
		_, c.Err = s.exchange(ctx, q, appendExtents(appendOthers(nil, c.Others), c.Missed), 0)
	case actExtents, actReadMissed:
		var body []byte
		if body, c.Err = s.ask(ctx, q); c.Err == nil {
			if c.Extents, c.Err = decodeExtents(body, c.Off, c.Len); c.Err != nil {
				c.Err = s.dead(c.Err)
			}
		}
	case actSums:
		var body []byte
		if body, c.Err = s.ask(ctx, q); c.Err == nil {
			if c.Sums, c.Err = decodeSums(body, c.Len); c.Err != nil {
				c.Err = s.dead(c.Err)
			}
		}
	}
}

// clear sends the regions in as many commands as they need.
func (s *Session) clear(ctx context.Context, q request, regions []peer.RegionSeq) error {
	for len(regions) > 0 {
		n := min(len(regions), maxRegions)
		if _, err := s.exchange(ctx, q, appendRegions(nil, regions[:n]), 0); err != nil {
			return err
		}
		regions = regions[n:]
	}
	return nil
}

// askFenced asks FENCE or POLL.
func (s *Session) askFenced(ctx context.Context, act action) (peer.Fenced, error) {
	body, err := s.ask(ctx, request{act: act, seq: uint64(s.epoch)})
	if err != nil {
		return peer.Fenced{}, err
	}
	f, err := decodeFenced(body)
	if err != nil {
		return peer.Fenced{}, s.dead(err)
	}
	return f, nil
}

// ask asks for an answer of any size, and fetches what did not come at once.
func (s *Session) ask(ctx context.Context, q request) ([]byte, error) {
	data, err := s.exchange(ctx, q, nil, firstAnswer)
	if err != nil {
		return nil, err
	}
	h, body, err := decodeAnswerHeader(data, q.act)
	if err != nil {
		return nil, s.dead(err)
	}
	for uint64(len(body)) < h.length {
		n := min(h.length-uint64(len(body)), nextAnswer)
		part, err := s.exchange(ctx, request{act: actFetch, seq: h.token, off: int64(len(body)), length: int64(n)}, nil, int(n))
		if err != nil {
			return nil, err
		}
		if uint64(len(part)) != n {
			return nil, s.dead(errShort)
		}
		body = append(body, part...)
	}
	return body, nil
}

// exchange sends one command and waits for its answer, of at most room bytes. If ctx ends first, the answer is dropped
// when it comes; the buffers are not the caller's.
func (s *Session) exchange(ctx context.Context, q request, dataOut []byte, room int) ([]byte, error) {
	var cdb [cdbLen]byte
	q.encode(&cdb)
	ch := make(chan struct{})
	cmd := &initiator.Command{CDB: cdb[:], DataOut: dataOut, Patient: patient(q.act), Done: func(*initiator.Command) { close(ch) }}
	if room > 0 {
		cmd.DataIn = make([]byte, room)
	}
	s.in.Submit(cmd)
	select {
	case <-ch:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the answer to %#x: %w", uint16(q.act), ctx.Err())
	}
	if err := s.outcome(cmd); err != nil {
		return nil, err
	}
	return cmd.DataIn[:cmd.Received], nil
}
