// Package powerdisk is a disk for tests whose power fails: writes that were not flushed are lost then, any of them, as those of a real
// disk with a volatile cache are. It also fails and hangs on demand. Programs use it through a file system of the kernel's, so that the
// whole way from a write to the medium is as it is in service; DESIGN.md says how. It needs root, /dev/fuse and loop devices.
package powerdisk
