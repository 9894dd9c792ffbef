package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds the file, in bytes.
const maxFile = 1 << 20

// Load reads a file over the defaults and validates the result. A key that is not known is an ErrUnknownKey that names
// it, its line, and the known key that it resembles most.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w (name another file with --config)", err)
	}
	if info.Size() > maxFile {
		return Config{}, fmt.Errorf("%s: %w: it is longer than %d bytes", path, ErrInvalid, maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := Parse(string(b))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse does what Load does with the text of a file.
func Parse(text string) (Config, error) {
	c := Default()
	meta, err := toml.Decode(text, &c)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return Config{}, fmt.Errorf("%w: line %d: %s", ErrInvalid, syntax.Position.Line, syntax.Message)
		}
		return Config{}, fmt.Errorf("%w: %s", ErrInvalid, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0].String()
		return Config{}, fmt.Errorf("%w %q%s", ErrUnknownKey, key, suggestion(key))
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return Config{}, fmt.Errorf("%w: no name given, and the host's is not known: %w", ErrInvalid, err)
		}
		c.Name, _, _ = strings.Cut(host, ".")
	}
	return c, c.Validate()
}

// suggestion names the known key that is nearest to an unknown one.
func suggestion(key string) string {
	best, least := "", len(key)/2+1
	for _, k := range Keys() {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		// A right key in a wrong table.
		last := key[strings.LastIndexByte(key, '.')+1:]
		for _, k := range Keys() {
			if k[strings.LastIndexByte(k, '.')+1:] == last {
				best = k
				break
			}
		}
	}
	if best == "" {
		return " (docs/pmsapp.example.toml has all keys)"
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// Keys returns every key of the file, dotted.
func Keys() []string {
	return keys(reflect.TypeFor[Config](), "")
}

func keys(t reflect.Type, prefix string) (all []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		switch {
		case f.Anonymous:
			all = append(all, keys(f.Type, prefix)...)
		case f.Type.Kind() == reflect.Struct:
			all = append(all, prefix+name)
			all = append(all, keys(f.Type, prefix+name+".")...)
		default:
			all = append(all, prefix+name)
		}
	}
	return all
}

// distance is how many letters must be put in, taken out, or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// Text writes c as a file that Parse reads.
func (c Config) Text() ([]byte, error) {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(c); err != nil {
		return nil, fmt.Errorf("writing a configuration: %w", err)
	}
	return b.Bytes(), nil
}
