// Package clients has programs that others wrote use a LUN of a cluster of real daemons: QEMU's tools and libiscsi's suite.
package clients
