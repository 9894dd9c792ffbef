// Package poolfs keeps named, sparse files on a block device, for a pool without a file system: files of zeros that are written,
// grown, punched, renamed and removed in small trees of directories. Everything that it knows of them is in memory and in a log on
// the device; DESIGN.md has the argument why a crash at any point leaves what was promised, and docs/FORMATS.md the bytes.
package poolfs
