package remote

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
)

// Vendor keys of a login between nodes.
const (
	keyCluster  = "X-app.pmsapp.cluster"
	keyEpoch    = "X-app.pmsapp.epoch"
	keyAccepted = "X-app.pmsapp.accepted"
)

const namePrefix = "iqn.2026-11.app.pmsapp:node:"

// ErrName is returned for a target name that is not a node's.
var ErrName = errors.New("remote: not the name of a node")

// TargetName is the iSCSI name under which a node exports its replicas; the leader's initiator has the same name.
func TargetName(n ids.Node) string { return namePrefix + n.String() }

// ParseTargetName gives the node of a name. It returns ErrName.
func ParseTargetName(s string) (ids.Node, error) {
	if len(s) < len(namePrefix) || s[:len(namePrefix)] != namePrefix {
		return ids.Node{}, ErrName
	}
	id, err := ids.Parse(s[len(namePrefix):])
	if err != nil {
		return ids.Node{}, fmt.Errorf("%w: %w", ErrName, err)
	}
	return ids.Node(id), nil
}

// Secrets derives from the cluster's key what the leader's initiator proves by CHAP, and what the node's target proves.
// They differ, so that neither proof can be shown back to the one who asked for it.
func Secrets(key []byte) (leader, node iscsi.Credentials) {
	derive := func(role string) iscsi.Credentials {
		h := hmac.New(sha256.New, key)
		h.Write([]byte("pmsapp session between nodes: " + role))
		return iscsi.Credentials{Name: "pmsapp-" + role, Secret: h.Sum(nil)}
	}
	return derive("leader"), derive("node")
}

// loginKeys are what the leader's end says at login.
func loginKeys(c ids.Cluster, e peer.Epoch) []iscsi.Pair {
	return []iscsi.Pair{{Key: keyCluster, Value: c.String()}, {Key: keyEpoch, Value: strconv.FormatUint(uint64(e), 10)}}
}

// Refusal is a login that the node's end refuses: the status and the keys of the response.
type Refusal struct {
	Status iscsi.LoginStatus
	Keys   []iscsi.Pair
	Why    string
}

func (r *Refusal) Error() string { return "remote: login refused: " + r.Why }

// parseLogin reads the leader's keys. It returns a *Refusal for keys that are missing or wrong, and for another cluster.
func parseLogin(c ids.Cluster, keys []iscsi.Pair) (peer.Epoch, error) {
	cluster, _ := iscsi.Lookup(keys, keyCluster)
	if cluster != c.String() {
		return 0, &Refusal{Status: iscsi.LoginForbidden, Why: "another cluster"}
	}
	text, _ := iscsi.Lookup(keys, keyEpoch)
	e, err := strconv.ParseUint(text, 10, 64)
	if err != nil || e == 0 {
		return 0, &Refusal{Status: iscsi.LoginMissingParameter, Why: "no epoch"}
	}
	return peer.Epoch(e), nil
}

// refuseEpoch is the refusal of an epoch below the accepted one.
func refuseEpoch(accepted peer.Epoch) *Refusal {
	return &Refusal{Status: iscsi.LoginForbidden, Why: "a higher epoch was accepted",
		Keys: []iscsi.Pair{{Key: keyAccepted, Value: strconv.FormatUint(uint64(accepted), 10)}}}
}

// refusedEpoch gives the *peer.EpochError of a login that was refused for its epoch, and err itself otherwise.
func refusedEpoch(err error, e peer.Epoch) error {
	var r *initiator.RefusedError
	if !errors.As(err, &r) {
		return err
	}
	text, ok := iscsi.Lookup(r.Keys, keyAccepted)
	if !ok {
		return err
	}
	accepted, perr := strconv.ParseUint(text, 10, 64)
	if perr != nil || peer.Epoch(accepted) <= e {
		return fmt.Errorf("%w, with %s=%.30q", err, keyAccepted, text)
	}
	return &peer.EpochError{Accepted: peer.Epoch(accepted)}
}
