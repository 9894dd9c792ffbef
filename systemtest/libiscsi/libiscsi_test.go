package libiscsi

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/iscsi"
	"pmsapp/systemtest/lunserver"
)

// TestSuite runs the whole suite against LUNs in memory, or against the LUN of ISCSI_URL; ISCSI_MATCH chooses tests.
func TestSuite(t *testing.T) {
	if _, err := exec.LookPath(Program); err != nil {
		t.Skip("needs ", Program, " (Debian package libiscsi-bin)")
	}
	if testing.Short() {
		t.Skip("takes a minute")
	}
	var match *regexp.Regexp
	if m := os.Getenv("ISCSI_MATCH"); m != "" {
		match = regexp.MustCompile(m)
	}
	if url := os.Getenv("ISCSI_URL"); url != "" {
		suite(t, url, url, match)
		return
	}
	for name, start := range map[string]func(t *testing.T) *lunserver.Server{
		"thin": func(t *testing.T) *lunserver.Server { return lunserver.Start(t, blocktest.NewMemory(256<<20, 512)) },
		"4096": func(t *testing.T) *lunserver.Server { return lunserver.Start(t, blocktest.NewMemory(256<<20, 4096)) },
		"written": func(t *testing.T) *lunserver.Server {
			dev := blocktest.NewMemory(64<<20, 512)
			dev.Submit(&block.Request{Op: block.Write, Len: 64 << 20, Data: bytes.Repeat([]byte{0xa5}, 64<<20), Done: func(*block.Request) {}})
			return lunserver.Start(t, dev)
		},
		"digests": func(t *testing.T) *lunserver.Server {
			s := lunserver.Start(t, blocktest.NewMemory(256<<20, 512))
			s.Args = "?header_digest=crc32c"
			return s
		},
		"chap": func(t *testing.T) *lunserver.Server {
			s := lunserver.Start(t, blocktest.NewMemory(256<<20, 512))
			s.Auth = iscsi.Auth{Initiator: iscsi.Credentials{Name: "host", Secret: []byte("secret-of-host")}}
			s.User = "host%secret-of-host@"
			return s
		},
		"mutual chap": func(t *testing.T) *lunserver.Server {
			s := lunserver.Start(t, blocktest.NewMemory(256<<20, 512))
			s.Auth = iscsi.Auth{Initiator: iscsi.Credentials{Name: "host", Secret: []byte("secret-of-host")},
				Own: iscsi.Credentials{Name: "target", Secret: []byte("secret-of-target")}}
			s.User, s.Args = "host%secret-of-host@", "?target_user=target&target_password=secret-of-target"
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			suite(t, s.URL(), s.URL(), match)
		})
	}
}

func suite(t *testing.T, url, second string, match *regexp.Regexp) {
	results, err := Run(t.Context(), url, Options{Match: match, Second: second})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	Table(&table, results)
	t.Log("\n" + table.String())
	for _, err := range Unexpected(results) {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	summary := "\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n              suites      1      1    n/a      0        0\n" +
		"               tests      1      1      1      %       0\n             asserts      3      3      3      0      n/a\n"
	for name, c := range map[string]struct {
		log  string
		late bool
		want Verdict
		why  string
	}{
		"pass":  {"  Test: Simple ...\n    ok\npassed" + strings.Replace(summary, "%", "0", 1), false, Pass, ""},
		"skip":  {"  Test: Simple ...\n    [SKIPPED] not removable\npassed" + strings.Replace(summary, "%", "0", 1), false, Skip, "not removable"},
		"fail":  {"  Test: Simple ...\n    [FAILED] READ10 failed\nFAILED\n    1. test_x.c:12  - CU_ASSERT" + strings.Replace(summary, "%", "1", 1), false, Fail, "test_x.c:12 READ10 failed"},
		"hang":  {"  Test: Simple ...\n    Send READ10", true, Hang, "Send READ10"},
		"error": {"Failed to log in", false, Error, "Failed to log in"},
	} {
		t.Run(name, func(t *testing.T) {
			if v, why := judge(c.log, nil, c.late); v != c.want || why != c.why {
				t.Errorf("%s %q, want %s %q", v, why, c.want, c.why)
			}
		})
	}
}
