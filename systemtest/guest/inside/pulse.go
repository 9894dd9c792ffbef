package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// event is a line that a load prints.
type event struct {
	// At is when an operation was completed, and Stood for how many seconds none had been, if that was long.
	At    time.Time `json:"at,omitzero"`
	Stood float64   `json:"stood,omitempty"`
	// Done says at the end, if all was well, how much was done.
	Done map[string]int64 `json:"done,omitempty"`
}

// notable is how long nothing must complete to be told; usual is how often it is told that something does.
const notable, usual = 200 * time.Millisecond, 500 * time.Millisecond

// pulse finds out for how long no operation completes. It is for many goroutines.
type pulse struct {
	mu   sync.Mutex
	out  *json.Encoder
	last time.Time // of the last operation
	told time.Time // of the last event
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
	gap := now.Sub(p.last)
	if gap < notable {
		gap = 0
	}
	if gap > 0 || now.Sub(p.told) >= usual {
		p.print(event{At: now, Stood: gap.Seconds()})
		p.told = now
	}
	p.last = now
	p.done[kind]++
}

// end tells that all was well.
func (p *pulse) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(event{Done: p.done})
	return p.err
}

func (p *pulse) print(e event) {
	if err := p.out.Encode(e); err != nil && p.err == nil {
		p.err = fmt.Errorf("printing: %w", err)
	}
}
