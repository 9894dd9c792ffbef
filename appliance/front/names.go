package front

import (
	"errors"
	"fmt"
	"strings"

	"pmsapp/internal/ids"
	"pmsapp/replication/remote"
)

// targetPrefix begins the names of hosts' targets.
const targetPrefix = "iqn.2026-11.app.pmsapp:"

// DefaultLUN is the number of a volume in its target.
const DefaultLUN = 1

// VirtualGroup is the target portal group tag, and the relative target port identifier, of the virtual address: the same on
// whichever node it is, so that what is reserved through it stays so when it moves. Those of nodes are below it.
const VirtualGroup = 0x8000

// TargetName is the name of an exported volume's target. iSCSI names have no capitals (RFC 7143, 4.2.7).
func TargetName(volume string) string { return targetPrefix + strings.ToLower(volume) }

// CommonName is the name of the target of all LUNs that are mapped to hosts; which LUNs it has depends on who asks.
func CommonName(c ids.Cluster) string { return targetPrefix + "cluster:" + c.String() }

// IsNodeTarget tells whether a target is a node's own, for the other nodes.
func IsNodeTarget(name string) bool {
	_, err := remote.ParseTargetName(name)
	return err == nil
}

// ErrInitiator is returned for what cannot be the iSCSI name of an initiator.
var ErrInitiator = errors.New("not an iSCSI name")

// CheckInitiator tells whether s can be an iSCSI name (RFC 7143, 4.2.7), and returns it as it is compared.
func CheckInitiator(s string) (string, error) {
	s = strings.ToLower(s)
	ok := len(s) <= 223 && (strings.HasPrefix(s, "iqn.") || strings.HasPrefix(s, "eui.") || strings.HasPrefix(s, "naa."))
	for _, r := range s {
		ok = ok && (r == '-' || r == '.' || r == ':' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z')
	}
	if !ok {
		return "", fmt.Errorf("%q: %w, as in iqn.1998-01.com.example:host1", s, ErrInitiator)
	}
	return s, nil
}
