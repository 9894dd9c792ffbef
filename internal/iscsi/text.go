package iscsi

import (
	"bytes"
	"errors"
	"fmt"
)

// Bounds of text keys (RFC 7143, 6.1): a key name has at most 63 bytes. Values are not over 255 bytes unless a key says
// otherwise; MaxValue is what a large binary value may take.
const (
	MaxKey   = 63
	MaxValue = 8192
	maxPairs = 1024
)

// ErrText is returned when text does not consist of key=value pairs, each ended by a zero byte, within the bounds.
var ErrText = errors.New("iscsi: malformed text")

// Pair is a text key with its value.
type Pair struct{ Key, Value string }

// ParseText splits the text of one or more data segments into its pairs. The same key may be there more than once.
func ParseText(b []byte) ([]Pair, error) {
	var pairs []Pair
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			return nil, fmt.Errorf("no zero byte after the last pair: %w", ErrText)
		}
		item := b[:end]
		b = b[end+1:]
		if len(item) == 0 {
			continue // some initiators pad with zero bytes
		}
		key, value, found := bytes.Cut(item, []byte{'='})
		switch {
		case !found:
			return nil, fmt.Errorf("no equals sign: %w", ErrText)
		case !validKey(key):
			return nil, fmt.Errorf("key name: %w", ErrText)
		case len(value) > MaxValue:
			return nil, fmt.Errorf("value of %d bytes: %w", len(value), ErrText)
		case len(pairs) == maxPairs:
			return nil, fmt.Errorf("more than %d pairs: %w", maxPairs, ErrText)
		}
		pairs = append(pairs, Pair{string(key), string(value)})
	}
	return pairs, nil
}

// AppendText appends pairs to b as they go into a data segment.
func AppendText(b []byte, pairs ...Pair) []byte {
	for _, p := range pairs {
		b = append(b, p.Key...)
		b = append(b, '=')
		b = append(b, p.Value...)
		b = append(b, 0)
	}
	return b
}

// validKey tells whether key is a standard label: letters, digits and . - + @ _ / ; extension keys begin with X- or X#.
func validKey(key []byte) bool {
	if len(key) == 0 || len(key) > MaxKey {
		return false
	}
	for _, c := range key {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case bytes.IndexByte([]byte(".-+@_/#:"), c) >= 0:
		default:
			return false
		}
	}
	return true
}

// Text collects text that comes in several PDUs (the C bit). The zero Text is empty and has no bound; Max must be set.
type Text struct {
	Max int // the most bytes that are collected
	buf []byte
}

// Add appends a data segment. It returns ErrText if that would exceed Max.
func (t *Text) Add(b []byte) error {
	if len(t.buf)+len(b) > t.Max {
		return fmt.Errorf("more than %d bytes of text: %w", t.Max, ErrText)
	}
	t.buf = append(t.buf, b...)
	return nil
}

// Take returns the pairs of what was collected and empties t.
func (t *Text) Take() ([]Pair, error) {
	pairs, err := ParseText(t.buf)
	t.buf = t.buf[:0]
	return pairs, err
}

// Lookup returns the first value of key.
func Lookup(pairs []Pair, key string) (string, bool) {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}
