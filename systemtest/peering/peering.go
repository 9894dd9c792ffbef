// Package peering has tests reach a node's replicas as other nodes do: over the target, and TCP on the loopback interface.
package peering

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"pmsapp/appliance/front"
	"pmsapp/internal/ids"
	"pmsapp/replication/remote"
	"pmsapp/target"
)

// Serve serves a node's replicas until the test ends, and returns how another node reaches them.
func Serve(t testing.TB, cluster ids.Cluster, id ids.Node, n remote.Node) *remote.Dialer {
	t.Helper()
	key, log := []byte("the key of the cluster"), slog.New(slog.DiscardHandler)
	server := remote.NewServer(remote.ServerConfig{Cluster: cluster, Node: n, Log: log})
	srv, err := target.New(target.Config{Provider: front.Provider{Peers: front.NewPeers(id, key, server)}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		srv.Shutdown(ctx)
		serving.Wait()
		server.Wait()
	})
	return remote.NewDialer(remote.DialerConfig{Cluster: cluster, Self: ids.NewNode(), Key: key, Log: log,
		Portal: func(ids.Node) (string, error) { return l.Addr().String(), nil }})
}
