// Package libiscsi runs libiscsi's test suite (iscsi-test-cu, Debian package libiscsi-bin) against a LUN, one test at a
// time, and makes a table of the results. The suite destroys the LUN's data.
package libiscsi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Program is the suite's executable.
const Program = "iscsi-test-cu"

// Verdict is what became of a test.
type Verdict string

const (
	Pass  Verdict = "PASS"
	Fail  Verdict = "FAIL"
	Skip  Verdict = "SKIP"  // it passed, but said at least once that it skipped something
	Crash Verdict = "CRASH" // the target does not answer any more
	Hang  Verdict = "HANG"  // it took too long, and the target is alive
	Error Verdict = "ERROR" // the suite itself died, or could not log in
)

// Result is a test with its verdict. Why is the reason of a skip, or the first thing that went wrong.
type Result struct {
	Test    string
	Verdict Verdict
	Why     string
	Took    time.Duration
	Log     string
}

// Options of a run. The zero value runs all tests, each for at most 20 seconds.
type Options struct {
	Match   *regexp.Regexp // only tests whose name ("Family.Test") matches
	Timeout time.Duration  // for one test
	Second  string         // URL of a second path to the LUN, for MultipathIO
	// Alive tells whether the target still answers; asked after a test that did not pass.
	Alive func() bool
	// Each is called with each result as it comes.
	Each func(Result)
}

// Tests lists the suite's tests as "Family.Test".
func Tests(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, Program, "-l").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests of %s: %w", Program, err)
	}
	var tests []string
	for line := range strings.Lines(string(out)) {
		name, found := strings.CutPrefix(strings.TrimSpace(line), "ALL.")
		if found && strings.Count(name, ".") == 1 {
			tests = append(tests, name)
		}
	}
	if len(tests) == 0 {
		return nil, fmt.Errorf("%s lists no tests", Program)
	}
	return tests, nil
}

// Run runs the tests that match against the LUN at url (iscsi://host:port/target/lun).
func Run(ctx context.Context, url string, o Options) ([]Result, error) {
	tests, err := Tests(ctx)
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	var results []Result
	for _, test := range tests {
		if o.Match != nil && !o.Match.MatchString(test) {
			continue
		}
		r := one(ctx, test, url, o)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		results = append(results, r)
		if o.Each != nil {
			o.Each(r)
		}
	}
	return results, nil
}

func one(ctx context.Context, test, url string, o Options) Result {
	args := []string{"--dataloss", "--allow-sanitize", "-V", "-t", "ALL." + test, url}
	if o.Second != "" && strings.HasPrefix(test, "MultipathIO.") {
		args = append(args, o.Second)
	}
	limited, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, Program, args...)
	cmd.WaitDelay = time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	begin := time.Now()
	err := cmd.Run()
	r := Result{Test: test, Took: time.Since(begin), Log: log.String()}
	r.Verdict, r.Why = judge(r.Log, err, limited.Err() != nil)
	if r.Verdict != Pass && r.Verdict != Skip && o.Alive != nil && !o.Alive() {
		r.Verdict = Crash
	}
	return r
}

var (
	failures = regexp.MustCompile(`(?m)^ +tests +\S+ +\S+ +\S+ +(\d+)`)
	asserted = regexp.MustCompile(`(?m)^ +1\. ([a-z0-9_]+\.c:\d+)`)
	marked   = regexp.MustCompile(`\[(?:FAILED|FAILURE|WARNING)\] *(.*)`)
	skipped  = regexp.MustCompile(`\[SKIPPED\] *(.*)`)
)

// judge reads the log of a test.
func judge(log string, err error, late bool) (Verdict, string) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !late {
		return Error, err.Error()
	}
	if late {
		return Hang, lastLine(log)
	}
	n := failures.FindStringSubmatch(log)
	said := body(log)
	switch {
	case n == nil:
		return Error, lastLine(log)
	case n[1] != "0":
		return Fail, strings.TrimSpace(first(asserted, log) + " " + first(marked, said))
	case skipped.MatchString(said):
		return Skip, first(skipped, said)
	}
	return Pass, ""
}

// body is what the test itself said: the suite's cleaning up afterwards may complain too.
func body(log string) string {
	_, log, _ = strings.Cut(log, "  Test: ")
	for _, end := range []string{"\npassed", "\nFAILED", "\nRun Summary"} {
		log, _, _ = strings.Cut(log, end)
	}
	return log
}

func first(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return strings.TrimSpace(m[1])
	}
	return ""
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// Table writes the results, one a line, and totals for each family.
func Table(w io.Writer, results []Result) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	type count map[Verdict]int
	families := map[string]count{}
	var order []string
	total := count{}
	for _, r := range results {
		fmt.Fprintf(b, "%-6s %-48s %6.2fs  %s\n", r.Verdict, r.Test, r.Took.Seconds(), r.Why)
		f, _, _ := strings.Cut(r.Test, ".")
		if families[f] == nil {
			families[f] = count{}
			order = append(order, f)
		}
		families[f][r.Verdict]++
		total[r.Verdict]++
	}
	all := []Verdict{Pass, Fail, Skip, Crash, Hang, Error}
	row := func(name string, c count) {
		fmt.Fprintf(b, "%-28s", name)
		for _, v := range all {
			fmt.Fprintf(b, "%7d", c[v])
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintf(b, "\n%-28s", "family")
	for _, v := range all {
		fmt.Fprintf(b, "%7s", v)
	}
	fmt.Fprintln(b)
	for _, f := range order {
		row(f, families[f])
	}
	row("all", total)
}
