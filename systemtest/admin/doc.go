// Package admin tests the daemon and its commands as an admin meets them: real processes of the real program, good and bad
// input, damaged disks, garbage on every port. What it asks for each time: a message that says what to do, no panic, nothing
// lost.
package admin
