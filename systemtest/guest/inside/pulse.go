package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Event is a line that a load prints.
type Event struct {
	// Begin and Seconds are of a standstill: for so long no operation was completed.
	Begin   time.Time `json:"begin,omitzero"`
	Seconds float64   `json:"seconds,omitempty"`
	// Done says at the end, if all was well, how much was done.
	Done map[string]int64 `json:"done,omitempty"`
}

// notable is how long nothing must complete to be told.
const notable = 200 * time.Millisecond

// pulse finds out for how long no operation completes. It is for many goroutines.
type pulse struct {
	mu   sync.Mutex
	out  *json.Encoder
	last time.Time
	done map[string]int64
	err  error
}

func newPulse(out io.Writer) *pulse {
	return &pulse{out: json.NewEncoder(out), last: time.Now(), done: map[string]int64{}}
}

// beat counts an operation that has completed.
func (p *pulse) beat(kind string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(p.last); gap >= notable {
		p.print(Event{Begin: p.last, Seconds: gap.Seconds()})
	}
	p.last = now
	p.done[kind]++
}

// end tells that all was well.
func (p *pulse) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(Event{Done: p.done})
	return p.err
}

func (p *pulse) print(e Event) {
	if err := p.out.Encode(e); err != nil && p.err == nil {
		p.err = fmt.Errorf("printing: %w", err)
	}
}
