// Package measure is what the benchmarks share: processes' CPU seconds and memory, and medians.
package measure

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Proc is a process whose CPU time is told.
type Proc struct {
	Name string
	PID  int
}

// Client is the name under which this process's CPU time goes.
const Client = "client"

// CPU returns the CPU seconds that the processes have used since they began, and this one.
func CPU(procs []Proc) map[string]float64 {
	out := map[string]float64{Client: cpuOf(os.Getpid())}
	for _, p := range procs {
		out[p.Name] = cpuOf(p.PID)
	}
	return out
}

func cpuOf(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0
	}
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return (user + system) / 100 // USER_HZ
}

// Memory is a process's resident memory, in bytes.
func Memory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(b), &total, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}

// Runs is what the runs of a case on one side have shown.
type Runs struct {
	Rates, Fair []float64
	done        int
	cpu         map[string]float64
}

// Add adds a run: its rate, what was done, and CPU before and after it.
func (r *Runs) Add(rate float64, done int, before, after map[string]float64) {
	r.Rates = append(r.Rates, rate)
	r.done += done
	if r.cpu == nil {
		r.cpu = map[string]float64{}
	}
	for k, v := range after {
		r.cpu[k] += v - before[k]
	}
}

// Line describes a side beside the rate of the first one, 0 for the first itself; want is the ratio to reach, 0 if none.
func (r *Runs) Line(name string, base, want float64, procs []Proc) string {
	var b strings.Builder
	rate := Median(r.Rates)
	fmt.Fprintf(&b, "  %-20s %9.0f/s", name, rate)
	if base > 0 {
		fmt.Fprintf(&b, "  %5.2f x", rate/base)
	} else {
		fmt.Fprintf(&b, "  %7s", "")
	}
	if want > 0 {
		fmt.Fprintf(&b, " (%.1f)", want)
	} else {
		fmt.Fprintf(&b, " %5s", "")
	}
	b.WriteString("   CPU seconds per 100,000:")
	for _, p := range append(slices.Clone(procs), Proc{Name: Client}) {
		fmt.Fprintf(&b, " %s %.1f", p.Name, r.cpu[p.Name]*1e5/float64(max(r.done, 1)))
	}
	return b.String()
}

// Median of at least one.
func Median(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return s[len(s)/2]
}
