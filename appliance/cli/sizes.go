package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// size is a number of bytes, written as 10G or 512M (powers of 1024), or plainly.
type size int64

var units = []struct {
	letter string
	bytes  int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// UnmarshalText reads a size; see size.
func (s *size) UnmarshalText(b []byte) error {
	text := strings.ToUpper(strings.TrimSpace(string(b)))
	text = strings.TrimSuffix(strings.TrimSuffix(text, "B"), "I")
	factor := int64(1)
	for _, u := range units {
		if t, ok := strings.CutSuffix(text, u.letter); ok {
			text, factor = t, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is not a size, as in 10G or 512M", b)
	}
	*s = size(n * factor)
	return nil
}

// bytes writes a number of bytes for people.
func bytes(n int64) string {
	for _, u := range units {
		if n >= u.bytes {
			if n%u.bytes == 0 {
				return fmt.Sprintf("%d %siB", n/u.bytes, u.letter)
			}
			return fmt.Sprintf("%.1f %siB", float64(n)/float64(u.bytes), u.letter)
		}
	}
	if n < 0 {
		return "-"
	}
	return fmt.Sprintf("%d B", n)
}

// seconds writes a time to go for people.
func seconds(s float64) string {
	if s < 0 {
		return "?"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
