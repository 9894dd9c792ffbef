// Package daemons has real daemons on this machine meet what a cluster meets in its life: a full pool, a set that is out of
// reach, a witness, a shutdown, a host at a node that does not serve.
package daemons
