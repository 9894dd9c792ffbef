package cluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// Made says what Init or Join made.
type Made struct {
	Cluster ids.Cluster
	Node    ids.Node
	CA      *x509.Certificate
}

// Init makes a cluster of one node in a state directory. admin makes the admin token of a CA; what the catalog keeps of it
// is its digest. With a backup (ReadBackup) it is that cluster, in a new history (catalog.Restored), with keys of its own; if the backup
// has a node of that name, this machine takes its place.
func Init(dir, name, address string, backup *catalog.State, admin func(ca *x509.Certificate) (token string, err error)) (Made, error) {
	if err := unused(dir); err != nil {
		return Made{}, err
	}
	id := &identity{Cluster: ids.NewCluster(), Node: ids.NewNode(), Name: name, Secret: make([]byte, 32), Fresh: true}
	if backup != nil {
		id.Cluster = backup.Cluster
		n, had := backup.NodeNamed(name)
		if !had && len(backup.Nodes) >= catalog.MaxNodes {
			return Made{}, fmt.Errorf("%w: it has %d nodes, and none is %s: use the name that one of them had", ErrBackup, len(backup.Nodes), name)
		}
		id.Former = n.ID
	}
	rand.Read(id.Secret)
	if err := id.makeCA(); err != nil {
		return Made{}, err
	}
	k, der, err := newKey()
	if err != nil {
		return Made{}, err
	}
	id.Key = der
	pub, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return Made{}, fmt.Errorf("encoding a key: %w", err)
	}
	if id.Cert, err = id.sign(id.Node, pub); err != nil {
		return Made{}, err
	}
	ca, err := x509.ParseCertificate(id.CA)
	if err != nil {
		return Made{}, fmt.Errorf("reading the CA: %w", err)
	}
	token, err := admin(ca)
	if err != nil {
		return Made{}, err
	}
	if err := bootstrap(dir, id, address, backup, sha256.Sum256([]byte(token))); err != nil {
		return Made{}, err
	}
	// Last: with an identity the machine is a member.
	id.Fresh = false
	if err := id.save(dir); err != nil {
		return Made{}, err
	}
	return Made{id.Cluster, id.Node, ca}, nil
}

// unused makes the directory, and returns ErrMember if it belongs to a cluster.
func unused(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	id, err := loadIdentity(dir)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w (%s): to begin anew, have it removed there (pmsapp node remove) and empty the directory",
			dir, ErrMember, id.Cluster)
	case !errors.Is(err, ErrNoCluster):
		return err
	}
	// A catalog without an identity is what an init or join left that was interrupted.
	if err := os.Remove(catalogPath(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing what an interrupted attempt has left: %w", err)
	}
	return nil
}

// bootstrap writes the first entries of the log: the configuration of one voter, and the catalog's first command; of a backup a snapshot.
func bootstrap(dir string, id *identity, address string, backup *catalog.State, admin [sha256.Size]byte) error {
	s, err := openStore(catalogPath(dir))
	if err != nil {
		return err
	}
	defer s.close()
	conf := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id.Node.String()), Address: raft.ServerAddress(address)}}}
	if backup != nil {
		if err := s.begin(conf, catalog.Restored(backup, ids.NewLineage(), admin[:], time.Now())); err != nil {
			return fmt.Errorf("writing the catalog of the backup: %w", err)
		}
		return s.SetUint64([]byte("CurrentTerm"), 1)
	}
	first, err := catalog.Encode(catalog.Command{Time: time.Now(), Body: catalog.Bootstrap{Cluster: id.Cluster,
		Lineage: ids.NewLineage(), Admin: admin[:]}})
	if err != nil {
		return err
	}
	if err := s.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)},
		{Index: 2, Term: 1, Type: raft.LogCommand, Data: first},
	}); err != nil {
		return fmt.Errorf("writing the first catalog: %w", err)
	}
	// The term of the entries is hashicorp/raft's own key.
	return s.SetUint64([]byte("CurrentTerm"), 1)
}

// joinRequest is what a machine says to join, and joinAnswer what it gets.
type joinRequest struct {
	Secret  []byte
	Name    string
	Witness bool
	Public  []byte   // PKIX
	Node    ids.Node // chosen by the machine once per attempt to join, so that a repeated request is the same
}

type joinAnswer struct {
	Cluster ids.Cluster
	Cert    []byte
	CA      []byte
	CAKey   []byte
	Secret  []byte
	Peers   []string
	Former  ids.Node // whose place the machine takes, by its name, in a catalog that was restored; zero: nobody's
}

// Join makes this machine a node of the cluster that gave the token. It becomes one when it first runs.
func Join(ctx context.Context, dir, name, token string, witness bool) (Made, error) {
	t, err := parseJoinToken(token)
	if err != nil {
		return Made{}, err
	}
	if err := unused(dir); err != nil {
		return Made{}, err
	}
	k, der, err := newKey()
	if err != nil {
		return Made{}, err
	}
	pub, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return Made{}, fmt.Errorf("encoding a key: %w", err)
	}
	id := &identity{Node: ids.NewNode(), Name: name, Witness: witness, Key: der, Fresh: true}
	req := joinRequest{Secret: t.secret[:], Name: name, Witness: witness, Public: pub, Node: id.Node}
	ans, err := askJoin(ctx, t, req)
	if err != nil {
		return Made{}, err
	}
	if sha256.Sum256(ans.CA) != t.ca || len(ans.Secret) != 32 {
		return Made{}, fmt.Errorf("%w: the answer is not of the cluster that made it", ErrToken)
	}
	id.Cluster, id.Cert, id.CA, id.CAKey, id.Secret, id.Peers = ans.Cluster, ans.Cert, ans.CA, ans.CAKey, ans.Secret, ans.Peers
	id.Former = ans.Former
	ca, err := x509.ParseCertificate(id.CA)
	if err != nil {
		return Made{}, fmt.Errorf("the CA: %w", err)
	}
	if err := id.save(dir); err != nil {
		return Made{}, err
	}
	return Made{id.Cluster, id.Node, ca}, nil
}

// askJoin tries the token's addresses, for a while: the leader may be changing.
func askJoin(ctx context.Context, t joinToken, req joinRequest) (ans joinAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		var last error
		for _, addr := range t.addrs {
			c, err := dialTLS(ctx, addr, &tls.Config{}, t.ca, streamJoin)
			if err == nil {
				err = ask(ctx, c, "join", req, &ans)
			}
			if err == nil || errors.Is(err, ErrToken) {
				return ans, err
			}
			last = err
		}
		select {
		case <-ctx.Done():
			return ans, fmt.Errorf("no node of the cluster could answer at %v: %w", t.addrs, last)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// NewToken makes a join token. The leader does; others answer ErrNotLeader.
func (c *Cluster) NewToken(ctx context.Context, witness bool, valid time.Duration) (string, time.Time, error) {
	var addrs []string
	self := c.Self()
	for _, n := range c.present() {
		if n.ID == self {
			addrs = append([]string{n.Address}, addrs...)
		} else if n.Address != "" {
			addrs = append(addrs, n.Address)
		}
	}
	if len(addrs) == 0 {
		addrs = []string{c.cfg.Advertise}
	}
	t := newJoinToken(c.id.CA, addrs)
	until := time.Now().Add(valid).Round(time.Second)
	_, err := c.Propose(ctx, catalog.Command{Body: catalog.AddToken{Token: catalog.Token{Digest: t.digest(), Witness: witness, Expires: until}}})
	return t.String(), until, err
}

// handleJoin answers a machine that has a token: the leader does, the others pass it on.
func (c *Cluster) handleJoin(ctx context.Context, _ ids.Node, body json.RawMessage) (any, error) {
	if !c.IsLeader() {
		var ans joinAnswer
		err := c.CallLeader(ctx, "join", body, &ans)
		return ans, err
	}
	var req joinRequest
	if err := json.Unmarshal(body, &req); err != nil || req.Node.IsZero() {
		return nil, fmt.Errorf("%w: the request cannot be read", ErrToken)
	}
	st := c.State()
	var former ids.Node
	switch n, taken := st.NodeNamed(req.Name); {
	case !taken || n.ID == req.Node:
	case !st.IsFormer(n.ID):
		return nil, fmt.Errorf("%w: a node named %s exists; choose another name in the configuration", ErrToken, req.Name)
	case req.Witness && len(n.Pools) > 0:
		return nil, fmt.Errorf("%w: %s was a storage node when the catalog was backed up: let it join as one, or choose another name", ErrToken, req.Name)
	default:
		former = n.ID
	}
	if former.IsZero() && len(st.Nodes) >= catalog.MaxNodes {
		return nil, fmt.Errorf("%w: the cluster has its %d nodes", ErrToken, catalog.MaxNodes)
	}
	digest := sha256.Sum256(req.Secret)
	if _, err := c.Propose(ctx, catalog.Command{Body: catalog.UseToken{Digest: digest[:], Node: req.Node, Witness: req.Witness}}); err != nil {
		if errors.Is(err, catalog.ErrToken) {
			return nil, fmt.Errorf("%w: %w; make another with pmsapp node token", ErrToken, err)
		}
		return nil, err
	}
	ans, err := c.admit(req.Node, req.Public)
	ans.Former = former
	return ans, err
}

// admit makes what a new identity needs.
func (c *Cluster) admit(node ids.Node, public []byte) (joinAnswer, error) {
	cert, err := c.id.sign(node, public)
	if err != nil {
		return joinAnswer{}, err
	}
	ans := joinAnswer{Cluster: c.id.Cluster, Cert: cert, CA: c.id.CA, CAKey: c.id.CAKey, Secret: c.id.Secret}
	for _, n := range c.present() {
		ans.Peers = append(ans.Peers, n.Address)
	}
	return ans, nil
}

// present are the nodes of the catalog but those that are known from a backup alone.
func (c *Cluster) present() (all []catalog.Node) {
	st := c.State()
	for _, n := range st.Nodes {
		if !st.IsFormer(n.ID) {
			all = append(all, n)
		}
	}
	return all
}
