// Package initiator is an iSCSI initiator (RFC 7143) for programs: a Session is one connection with one target, on which
// many commands are under way at once; a Disk is a block device behind several portals that survives the loss of some.
//
// # A session
//
// Dial connects and logs in. Submit begins a command and returns; the command's Done tells the end. Three goroutines
// belong to a session, whatever its load: one writes, one reads, one watches the clock. The writer collects PDUs for as
// long as there are any and sends them with one system call; the reader puts the data of a Data-In straight into the
// buffer of its command. Nothing is allocated per command.
//
// A path dies in exactly one of the ways listed in errors.go, each with an error value of its own. There is no recovery
// within a session (ErrorRecoveryLevel 0): whoever wants to go on opens another one. When a session has died, its buffers
// are let go first and its commands end then, each with the cause.
package initiator
