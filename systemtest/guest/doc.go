// Package guest has Linux machines use a cluster of real daemons: the kernel's own iSCSI initiator with dm-multipath, and its own NFS
// client with default options, while leaders die under load.
//
// The machines are user-mode Linux (Debian's package user-mode-linux: a Linux kernel that is a process, up in seconds, and that needs
// no virtualisation), with a root file system of Debian's packages that is made once and kept in the user's cache directory.
// Each test runs in a network, mount and process namespace of its own (it runs its own binary again there), with a bridge, a
// namespace for each node on which the daemon has the addresses and the ports of a real installation, and a tap for each
// machine. So the virtual address is a real one, moved and announced by the daemon; a node's cable can be pulled; and nothing is left when the
// test ends. That needs root.
//
// Folder inside has what runs in the machines. On its command channel, HTTP over the bridge, no test depends: cables are pulled between
// the nodes and the bridge only.
package guest
