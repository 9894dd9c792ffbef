package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const maxAnswer = 64 << 20 // bytes

// Client calls the API of one cluster at any of several addresses.
type Client struct {
	// Retry is how long a call is repeated while no node answers or none leads; 0: not at all.
	Retry time.Duration
	// Refused bounds that where nothing listens at any of the addresses; 0: it does not.
	Refused time.Duration

	bases []string
	token string
	http  *http.Client
}

// NewClient makes a client for addresses (host:port or https URLs), which are tried in turn.
func NewClient(addrs []string, token string) (*Client, error) {
	ca, err := caOf(token)
	if err != nil {
		return nil, err
	}
	c := &Client{token: token, http: &http.Client{
		Transport: &http.Transport{TLSClientConfig: clientTLS(ca), MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second},
	}}
	for _, a := range addrs {
		if !strings.Contains(a, "://") {
			a = "https://" + a
		}
		u, err := url.Parse(a)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, Errorf(ErrInvalid, "", "%q is not an API address, as in https://192.168.1.11:7443", a)
		}
		c.bases = append(c.bases, "https://"+u.Host)
	}
	if len(c.bases) == 0 {
		return nil, Errorf(ErrInvalid, "name one with --api", "no API address")
	}
	return c, nil
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NewRequest makes a request id.
func NewRequest() string { return rand.Text() }

// call makes one call, at each address in turn, again while nobody can answer and Retry lasts. A call that changes
// something has the same request id each time.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding the call: %w", err)
		}
	}
	request := NewRequest()
	begun := time.Now()
	for {
		var last error
		refused := c.Refused > 0
		for _, base := range c.bases {
			last = c.once(ctx, base, method, path, request, body, out)
			if last == nil || !again(last) {
				return last
			}
			refused = refused && errors.Is(last, syscall.ECONNREFUSED)
		}
		limit := c.Retry
		if refused {
			limit = min(limit, c.Refused)
		}
		if time.Since(begun) >= limit || ctx.Err() != nil {
			return last
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return last
		}
	}
}

// errConnect is returned when a node did not answer.
var errConnect = errors.New("no answer")

func again(err error) bool { return errors.Is(err, errConnect) || errors.Is(err, ErrNoLeader) }

func (c *Client) once(ctx context.Context, base, method, path, request string, body []byte, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return Errorf(ErrInvalid, "", "%v", err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Idempotency-Key", request)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		if errors.Is(err, errPinned) {
			return Errorf(ErrToken, "take the admin.token of this cluster", "%s: %v", base, errPinned)
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("%w at %s: %w (is pmsapp serve running there?)", errConnect, base, err)
	}
	defer resp.Body.Close()
	limit := most(out)
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("%w at %s: %w", errConnect, base, err)
	}
	if int64(len(b)) > limit {
		return Errorf(ErrInternal, "", "%s: the answer is longer than %d bytes", base, limit)
	}
	if resp.StatusCode != http.StatusOK {
		return decodeError(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if r, ok := out.(*raw); ok {
		*r = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return Errorf(ErrInternal, "are client and node of the same version?", "%s: the answer is not what was expected: %v", base, err)
	}
	return nil
}

// Status asks for the state of the cluster. local: only what the node that is asked knows itself.
func (c *Client) Status(ctx context.Context, local bool) (s Status, err error) {
	path := "/v1/status"
	if local {
		path += "?local=1"
	}
	return s, c.call(ctx, http.MethodGet, path, nil, &s)
}

// Events asks for the newest limit events after an index.
func (c *Client) Events(ctx context.Context, after uint64, limit int) (e []Event, err error) {
	path := "/v1/events?after=" + strconv.FormatUint(after, 10) + "&limit=" + strconv.Itoa(limit)
	return e, c.call(ctx, http.MethodGet, path, nil, &e)
}

// RemoveNode takes a node out of the cluster.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(name), nil, nil)
}

// NewToken makes a token for a machine to join with.
func (c *Client) NewToken(ctx context.Context, witness bool) (t Token, err error) {
	return t, c.call(ctx, http.MethodPost, "/v1/tokens", NewToken{witness}, &t)
}

// AddPool makes a directory of a node a pool.
func (c *Client) AddPool(ctx context.Context, p NewPool) (out Pool, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/pools", p, &out)
}

// CreateVolume makes a volume.
func (c *Client) CreateVolume(ctx context.Context, v NewVolume) (out Volume, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes", v, &out)
}

// DeleteVolume deletes a volume: to the trash, or for good.
func (c *Client) DeleteVolume(ctx context.Context, name string, purge bool) error {
	path := "/v1/volumes/" + url.PathEscape(name)
	if purge {
		path += "?purge=1"
	}
	return c.call(ctx, http.MethodDelete, path, nil, nil)
}

// Resync has resyncs that failed tried again now.
func (c *Client) Resync(ctx context.Context, name string, r Resync) error {
	return c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(name)+"/resync", r, nil)
}

// Export makes a LUN of a volume.
func (c *Client) Export(ctx context.Context, l NewLUN) (out LUN, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/luns", l, &out)
}

// Unexport takes a LUN away; the volume stays.
func (c *Client) Unexport(ctx context.Context, volume string) error {
	return c.call(ctx, http.MethodDelete, "/v1/luns/"+url.PathEscape(volume), nil, nil)
}

// Transfer hands the leadership over.
func (c *Client) Transfer(ctx context.Context, to string) error {
	return c.call(ctx, http.MethodPost, "/v1/leader/transfer", Transfer{to}, nil)
}

// ShutdownCluster closes all volumes and stops all nodes.
func (c *Client) ShutdownCluster(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/cluster/shutdown", nil, nil)
}
