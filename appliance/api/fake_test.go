package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"
)

// fake is a cluster of two servers: what the follower gets goes to the leader.
type fake struct {
	name    string
	leading bool
	peer    *Server
	volumes map[string]NewVolume
	seen    map[string]bool // request ids
}

func (f *fake) Leading() bool         { return f.leading }
func (f *fake) IsSelf(n string) bool  { return n == f.name }
func (f *fake) find(name string) bool { _, ok := f.volumes[name]; return ok }

func (f *fake) Forward(ctx context.Context, _ string, c Call) (Reply, error) {
	if f.peer == nil {
		return Reply{}, Errorf(ErrNoLeader, "wait for an election", "no node leads")
	}
	return f.peer.Do(ctx, c), nil
}

func (f *fake) Status(context.Context) (Status, error) {
	return Status{Answered: f.name, Leader: "a"}, nil
}
func (f *fake) Events(_ context.Context, after uint64, limit int) ([]Event, error) {
	return []Event{{Index: after + 1, Text: "x"}}[:min(limit, 1)], nil
}
func (f *fake) RemoveNode(_ context.Context, _, name string) error {
	return Errorf(ErrNotFound, "pmsapp node list", "no node %q", name)
}
func (f *fake) NewToken(_ context.Context, _ string, t NewToken) (Token, error) {
	return Token{Token: "t"}, nil
}
func (f *fake) AddPool(_ context.Context, _ string, p NewPool) (Pool, error) {
	return Pool{Node: f.name, Path: p.Path}, nil
}
func (f *fake) CreateVolume(_ context.Context, request string, v NewVolume) (Volume, error) {
	if f.find(v.Name) && !f.seen[request] {
		return Volume{}, Errorf(ErrConflict, "choose another name", "the volume %s exists", v.Name)
	}
	f.volumes[v.Name], f.seen[request] = v, true
	return Volume{Name: v.Name, Size: v.Size}, nil
}
func (f *fake) DeleteVolume(_ context.Context, _, name string, _ bool) error {
	if !f.find(name) {
		return Errorf(ErrNotFound, "", "no volume %q", name)
	}
	delete(f.volumes, name)
	return nil
}
func (f *fake) Trash(context.Context) ([]Trashed, error) { return []Trashed{{Name: "old"}}, nil }
func (f *fake) RestoreVolume(_ context.Context, _, name string, r Restore) (Volume, error) {
	return Volume{Name: name + r.As}, nil
}
func (f *fake) PurgeVolume(context.Context, string, string) error { return nil }
func (f *fake) Copies(context.Context) (Copies, error)            { return Copies{}, nil }
func (f *fake) SetCopies(context.Context, string, SetCopies) (Copies, error) {
	return Copies{}, nil
}
func (f *fake) Scrub(context.Context, string, string, NewScrub) (Scrubbing, error) {
	return Scrubbing{}, nil
}
func (f *fake) Resync(context.Context, string, string, Resync) error { return nil }
func (f *fake) ForceVolume(_ context.Context, _, name string, w Force) (Forced, error) {
	return Forced{Volume: name, Done: w.Confirm == name}, nil
}
func (f *fake) WithdrawVolume(_ context.Context, _, name string, w Withdraw) (Withdrawn, error) {
	return Withdrawn{Volume: name, Done: w.Confirm == name}, nil
}
func (f *fake) AdoptVolume(_ context.Context, _, id string, a Adopt) (Volume, error) {
	return Volume{ID: id, Name: a.Name}, nil
}
func (f *fake) AddReplica(_ context.Context, _, v string, r NewReplica) (Volume, error) {
	return Volume{Name: v, Replicas: []Replica{{Node: r.Node}}}, nil
}
func (f *fake) Drain(context.Context, string, string, Drain) error { return nil }
func (f *fake) ResizeVolume(_ context.Context, _, v string, s NewSize) (Volume, error) {
	return Volume{Name: v, Size: s.Size}, nil
}
func (f *fake) SetDurability(_ context.Context, _, v string, d NewDurability) (Volume, error) {
	return Volume{Name: v, Durability: d.Durability}, nil
}
func (f *fake) RemoveReplica(context.Context, string, string, string) error { return nil }
func (f *fake) Export(_ context.Context, _ string, l NewLUN) (LUN, error) {
	return LUN{Volume: l.Volume}, nil
}
func (f *fake) Shares(context.Context) ([]Share, error) { return []Share{}, nil }
func (f *fake) Share(_ context.Context, name string) (Share, error) {
	return Share{Volume: Volume{Name: name}}, nil
}
func (f *fake) CreateShare(ctx context.Context, request string, v NewVolume) (Share, error) {
	w, err := f.CreateVolume(ctx, request, v)
	return Share{Volume: w}, err
}
func (f *fake) DeleteShare(ctx context.Context, request, name string, purge bool) error {
	return f.DeleteVolume(ctx, request, name, purge)
}
func (f *fake) ExportShare(_ context.Context, _, name string, r ShareRule) (Share, error) {
	return Share{Volume: Volume{Name: name}, Rules: []ShareRule{r}}, nil
}
func (f *fake) UnexportShare(context.Context, string, string, string) error { return nil }
func (f *fake) Unexport(context.Context, string, string) error              { return nil }
func (f *fake) Transfer(context.Context, string, Transfer) error            { return nil }
func (f *fake) ShutdownCluster(ctx context.Context, _ string) error         { return nil }
func (f *fake) BackupCatalog(context.Context) ([]byte, error) {
	if f.peer == nil && !f.leading {
		return nil, Errorf(ErrNoLeader, "", "no node leads")
	}
	return bytes.Repeat([]byte(f.name), maxAnswer+1), nil
}

// world has a leader a and a follower b behind TLS.
type world struct {
	a, b   *fake
	as, bs *httptest.Server
	token  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, cert := certificates(t)
	w := &world{token: MakeToken(ca)}
	digest := sha256.Sum256([]byte(w.token))
	w.a = &fake{name: "a", leading: true, volumes: map[string]NewVolume{}, seen: map[string]bool{}}
	w.b = &fake{name: "b", volumes: map[string]NewVolume{}, seen: map[string]bool{}}
	sa := NewServer(w.a, func() [32]byte { return digest }, slog.New(slog.DiscardHandler))
	sb := NewServer(w.b, func() [32]byte { return digest }, slog.New(slog.DiscardHandler))
	w.b.peer = sa
	start := func(s *Server) *httptest.Server {
		h := httptest.NewUnstartedServer(s)
		h.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
		h.StartTLS()
		t.Cleanup(h.Close)
		return h
	}
	w.as, w.bs = start(sa), start(sb)
	return w
}

func (w *world) client(t *testing.T, addrs ...string) *Client {
	t.Helper()
	c, err := NewClient(addrs, w.token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// certificates makes a CA and a node's certificate with the chain.
func certificates(t *testing.T) (*x509.Certificate, tls.Certificate) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	caKey, nodeKey := key(), key()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign}
	ca := sign(tmpl, tmpl, &caKey.PublicKey, caKey)
	node := sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: tmpl.NotBefore, NotAfter: tmpl.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		ca, &nodeKey.PublicKey, caKey)
	return ca, tls.Certificate{Certificate: [][]byte{node.Raw, ca.Raw}, PrivateKey: nodeKey}
}

func (f *fake) Hosts(context.Context) ([]Host, error) { return []Host{}, nil }
func (f *fake) AddHost(_ context.Context, _ string, h NewHost) (Host, error) {
	return Host{Name: h.Name}, nil
}
func (f *fake) RemoveHost(context.Context, string, string) error { return nil }
func (f *fake) Maps(context.Context) ([]Map, error)              { return []Map{}, nil }
func (f *fake) MapLUN(_ context.Context, _ string, m NewMap) (Map, error) {
	return Map{Volume: m.Volume}, nil
}
func (f *fake) UnmapLUN(context.Context, string, string, string) error { return nil }
func (f *fake) VerifyLUNs(context.Context) (Verified, error)           { return Verified{}, nil }
