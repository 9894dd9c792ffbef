package appliance

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// controlGroup is where a control group of version 2 says how much memory its processes may use, as they see it.
const controlGroup = "/sys/fs/cgroup/memory.max"

// memoryShare is so many percent of the memory that this process may use, in bytes; 0 if that is not known.
func memoryShare(percent int) int64 {
	var all int64
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		all = int64(info.Totalram) * int64(info.Unit)
	}
	if b, err := os.ReadFile(controlGroup); err == nil {
		all = least(all, string(b))
	}
	return all / 100 * int64(percent)
}

// least is the smaller of a number of bytes and what a control group says, which may be that it has no limit.
func least(all int64, limit string) int64 {
	if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && n > 0 && n < all {
		return n
	}
	return all
}
