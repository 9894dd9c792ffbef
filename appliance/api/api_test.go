package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestCallsThroughEitherNode(t *testing.T) {
	w := newWorld(t)
	for name, addr := range map[string]string{"leader": w.as.URL, "follower": w.bs.URL} {
		t.Run(name, func(t *testing.T) {
			c, ctx := w.client(t, addr), t.Context()
			v, err := c.CreateVolume(ctx, NewVolume{Name: "v", Size: 4096, Replicas: 1})
			if err != nil || v.Name != "v" || !w.a.find("v") {
				t.Fatal(v, err)
			}
			if _, err := c.CreateVolume(ctx, NewVolume{Name: "v"}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "choose another name") {
				t.Fatal(err)
			}
			if err := c.DeleteVolume(ctx, "v", false); err != nil {
				t.Fatal(err)
			}
			if err := c.DeleteVolume(ctx, "v", false); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			if s, err := c.Status(ctx, false); err != nil || s.Answered != "a" {
				t.Fatal(s, err)
			}
			if e, err := c.Events(ctx, 7, 10); err != nil || len(e) != 1 || e[0].Index != 8 {
				t.Fatal(e, err)
			}
			if p, err := c.AddPool(ctx, NewPool{Path: "/p"}); err != nil || (p.Node == "a") != (name == "leader") {
				t.Fatal(p, err)
			}
			if p, err := c.AddPool(ctx, NewPool{Path: "/p", Node: "a"}); err != nil || p.Node != "a" {
				t.Fatal(p, err)
			}
			if err := c.RemoveNode(ctx, "none/../x"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "none/../x") {
				t.Fatal(err)
			}
		})
	}
}

func TestWithoutALeader(t *testing.T) {
	w := newWorld(t)
	w.b.peer = nil
	c := w.client(t, w.bs.URL)
	if _, err := c.NewToken(t.Context(), false); !errors.Is(err, ErrNoLeader) {
		t.Fatal(err)
	}
	if s, err := c.Status(t.Context(), false); err != nil || s.Answered != "b" {
		t.Fatal(s, err)
	}
}

// TestBackup: it is the bytes of the node that was asked, however many, and an error is told as any other.
func TestBackup(t *testing.T) {
	w := newWorld(t)
	for name, addr := range map[string]string{"a": w.as.URL, "b": w.bs.URL} {
		b, err := w.client(t, addr).BackupCatalog(t.Context())
		if err != nil || len(b) != maxAnswer+1 || string(b[:1]) != name {
			t.Fatal(len(b), err)
		}
	}
	w.b.peer = nil
	if _, err := w.client(t, w.bs.URL).BackupCatalog(t.Context()); !errors.Is(err, ErrNoLeader) {
		t.Fatal(err)
	}
}

func TestTriesTheNextAddress(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	if _, err := w.client(t, dead, w.as.URL).NewToken(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client(t, dead).NewToken(t.Context(), false); err == nil || !strings.Contains(err.Error(), "is pmsapp serve running") {
		t.Fatal(err)
	}
}

// A node that has just joined knows no token: that is no reason to tell an admin that theirs is wrong.
func TestTokenNotKnownYet(t *testing.T) {
	w := newWorld(t)
	known := w.bs.Config.Handler
	w.bs.Config.Handler = NewServer(w.b, func() (none [32]byte) { return none }, slog.New(slog.DiscardHandler))
	if _, err := w.client(t, w.bs.URL).Status(t.Context(), false); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrToken) {
		t.Fatal(err)
	}
	if s, err := w.client(t, w.bs.URL, w.as.URL).Status(t.Context(), false); err != nil || s.Answered != "a" {
		t.Fatal(s, err)
	}
	w.bs.Config.Handler = known
	if s, err := w.client(t, w.bs.URL).Status(t.Context(), true); err != nil || s.Answered != "b" {
		t.Fatal(s, err)
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	ca, _ := certificates(t)
	other := MakeToken(ca)
	half := other[:strings.LastIndex(other, ".")] + w.token[strings.LastIndex(w.token, "."):]
	for name, c := range map[string]struct{ token, want string }{
		"another cluster's": {other, "not signed by the CA"},
		"wrong":             {half, "missing or not this cluster's"},
		"none":              {"", "not an admin token"},
		"damaged":           {w.token[:len(w.token)-4], "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, err := NewClient([]string{w.as.URL}, c.token)
			if err == nil {
				defer cl.Close()
				_, err = cl.Status(t.Context(), false)
			}
			if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
		})
	}
}

func TestBadCalls(t *testing.T) {
	w := newWorld(t)
	cl := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(cl.CloseIdleConnections)
	for name, c := range map[string]struct {
		method, path, key, body, want string
		status                        int
	}{
		"no request id":  {"POST", "/v1/volumes", "", `{}`, "Idempotency-Key", 400},
		"not JSON":       {"POST", "/v1/volumes", NewRequest(), `{`, "not JSON", 400},
		"unknown field":  {"POST", "/v1/volumes", NewRequest(), `{"nmae":"x"}`, "nmae", 400},
		"wrong type":     {"POST", "/v1/volumes", NewRequest(), `{"size":"x"}`, "size must be", 400},
		"too long":       {"POST", "/v1/volumes", NewRequest(), strings.Repeat(" ", maxBody+1), "too large", 400},
		"no such call":   {"GET", "/v1/none", "", "", "there is no call", 404},
		"wrong method":   {"PUT", "/v1/volumes", NewRequest(), "", "there is no call", 404},
		"not a number":   {"GET", "/v1/events?after=x", "", "", "not a number", 400},
		"odd body":       {"POST", "/v1/pools", NewRequest(), `[1]`, "not what this call takes", 400},
		"path traversal": {"GET", "/v1/../etc/passwd", "", "", "", 404},
	} {
		for _, base := range []string{w.as.URL, w.bs.URL} {
			t.Run(name, func(t *testing.T) {
				r, err := http.NewRequestWithContext(context.Background(), c.method, base+c.path, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+w.token)
				r.Header.Set("Idempotency-Key", c.key)
				resp, err := cl.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != c.status || !strings.Contains(string(b), c.want) {
					t.Fatalf("%d %s", resp.StatusCode, b)
				}
			})
		}
	}
}

// TestGarbage sends bytes that are no TLS, and HTTP without it: the server answers the next client as before.
func TestGarbage(t *testing.T) {
	w := newWorld(t)
	addr := w.as.Listener.Addr().String()
	for _, g := range [][]byte{bytes.Repeat([]byte{0}, 4096), bytes.Repeat([]byte{0xff}, 4096), []byte("GET / HTTP/1.0\r\n\r\n"), {0x16, 3, 1, 0xff, 0xff, 1}} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(g)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
	if _, err := w.client(t, w.as.URL).Status(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}
