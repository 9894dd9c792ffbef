// Package filetree is the file tree of a share as the catalog keeps it: inodes, directories, the maps from a file's bytes
// to the volume's, the use of the volume's space, and the replies that make a repeated call harmless.
//
// It is pure: a Tree never changes once it was returned, Apply makes the next one, and two trees share what they have in
// common, so that a command costs the logarithm of the number of files, and a reader needs no lock. It has no clock (a
// command carries the time), no I/O and no randomness. Apply gives the same on every node.
//
// Who proposes the commands, when data is durable, and which space is zeroed when, is the share's business: DESIGN.md.
package filetree
