package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExampleIsTheDefaults(t *testing.T) {
	c, err := Load("../../docs/pmsapp.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name = c.Name // the host's
	if d := cmp.Diff(want, c); d != "" {
		t.Fatal(d)
	}
}

func TestExampleNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../docs/pmsapp.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		last := k[strings.LastIndexByte(k, '.')+1:]
		if !strings.Contains(string(b), "\n"+last+" = ") && !strings.Contains(string(b), "\n["+k+"]") {
			t.Errorf("the example lacks %s", k)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		is               error
	}{
		{"unknown", `nmae = "a"`, `unknown key "nmae", did you mean "name"?`, ErrUnknownKey},
		{"unknown in a table", "[timeouts.peers]\nlogin_timout = \"1s\"", `did you mean "timeouts.peers.login_timeout"?`, ErrUnknownKey},
		{"wrong table", "recovery_timeout = \"1s\"", `did you mean "timeouts.hosts.recovery_timeout"?`, ErrUnknownKey},
		{"like nothing", `zzzzzzzzzzzzzz = 1`, `docs/pmsapp.example.toml has all keys`, ErrUnknownKey},
		{"syntax", "name = \"a\"\npools = [", "line 2", ErrInvalid},
		{"type", `name = 7`, "name", ErrInvalid},
		{"name", `name = "a_b"`, "name: ", ErrInvalid},
		{"twice", `pools = ["/a", "/a/"]`, "named twice", ErrInvalid},
		{"relative state", `state = "data"`, `state: "data" is not an absolute path`, ErrInvalid},
		{"relative pool", `pools = ["pool1"]`, `pools: "pool1" is not an absolute path`, ErrInvalid},
		{"the state", `pools = ["/var/lib/pmsapp"]`, "state directory", ErrInvalid},
		{"address", "[address]\nportal = \"host\"", "address.portal", ErrInvalid},
		{"the same", "[address]\nportal = \"0.0.0.0:7443\"", "is address.api already", ErrInvalid},
		{"range", "[timeouts]\nhold_timeout = \"5s\"", "hold_timeout: 5s is not 10s to 10m0s", ErrInvalid},
		{"election", "[timeouts.cluster]\nelection_timeout = \"200ms\"", "election_timeout", ErrInvalid},
		{"format", "[log]\nformat = \"xml\"", "log.format", ErrInvalid},
		{"level", "[log]\nlevel = \"loud\"", "level", ErrInvalid},
		{"virtual", "[virtual]\nportal = \"0.0.0.0:3260\"", "virtual.portal", ErrInvalid},
		{"lifetime", "[virtual]\nportal = \"10.0.0.1:3260\"\nlifetime = \"2500ms\"", "whole seconds", ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse(c.text); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`name = "a"`)
	f.Add("[timeouts.peers]\nlogin_timout = \"1s\"")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := Parse(text); err == nil && c.Validate() != nil {
			t.Fatal("accepted an invalid file")
		}
	})
}

func TestTextIsRead(t *testing.T) {
	want := Default()
	want.Name, want.Pools, want.Virtual.Portal = "a", []string{"/p"}, "192.0.2.1:3260"
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(string(text))
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v\n%s\n%s", err, d, text)
	}
}
