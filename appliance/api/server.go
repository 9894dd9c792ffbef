package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody = 1 << 20 // of a request, in bytes
	maxWait = 2 * time.Minute
)

// Backend does what calls ask for. Its errors are an *Error, or are told as internal ones.
type Backend interface {
	// Leading tells whether this node answers for the cluster.
	Leading() bool
	// Forward has the leader answer; to names another node where not empty. It is ErrNoLeader if there is none, or if it
	// was lost before it answered.
	Forward(ctx context.Context, to string, call Call) (Reply, error)
	// IsSelf tells whether name is this node's.
	IsSelf(name string) bool

	Status(ctx context.Context) (Status, error)
	Events(ctx context.Context, after uint64, limit int) ([]Event, error)
	RemoveNode(ctx context.Context, request, name string) error
	NewToken(ctx context.Context, request string, t NewToken) (Token, error)
	AddPool(ctx context.Context, request string, p NewPool) (Pool, error)
	CreateVolume(ctx context.Context, request string, v NewVolume) (Volume, error)
	DeleteVolume(ctx context.Context, request, name string, purge bool) error
	Trash(ctx context.Context) ([]Trashed, error)
	RestoreVolume(ctx context.Context, request, name string, r Restore) (Volume, error)
	PurgeVolume(ctx context.Context, request, name string) error
	ForceVolume(ctx context.Context, request, name string, f Force) (Forced, error)
	WithdrawVolume(ctx context.Context, request, name string, w Withdraw) (Withdrawn, error)
	AdoptVolume(ctx context.Context, request, id string, a Adopt) (Volume, error)
	Resync(ctx context.Context, request, name string, r Resync) error
	Scrub(ctx context.Context, request, name string, s NewScrub) (Scrubbing, error)
	Copies(ctx context.Context) (Copies, error)
	SetCopies(ctx context.Context, request string, s SetCopies) (Copies, error)
	AddReplica(ctx context.Context, request, volume string, r NewReplica) (Volume, error)
	Drain(ctx context.Context, request, node string, d Drain) error
	ResizeVolume(ctx context.Context, request, volume string, s NewSize) (Volume, error)
	// SetDurability changes what the acknowledgement of a write means.
	SetDurability(ctx context.Context, request, volume string, d NewDurability) (Volume, error)
	RemoveReplica(ctx context.Context, request, volume, node string) error
	Export(ctx context.Context, request string, l NewLUN) (LUN, error)
	Unexport(ctx context.Context, request, volume string) error
	Hosts(ctx context.Context) ([]Host, error)
	AddHost(ctx context.Context, request string, h NewHost) (Host, error)
	RemoveHost(ctx context.Context, request, name string) error
	Maps(ctx context.Context) ([]Map, error)
	MapLUN(ctx context.Context, request string, m NewMap) (Map, error)
	UnmapLUN(ctx context.Context, request, volume, host string) error
	VerifyLUNs(ctx context.Context) (Verified, error)
	Transfer(ctx context.Context, request string, t Transfer) error
	ShutdownCluster(ctx context.Context, request string) error
	// BackupCatalog returns the catalog with all that was committed before the call.
	BackupCatalog(ctx context.Context) ([]byte, error)
	ShareBackend
}

// Call is a request as it is forwarded between nodes.
type Call struct {
	Method  string          `json:"method"`
	Path    string          `json:"path"` // with the query
	Request string          `json:"request"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Reply is the answer to a Call.
type Reply struct {
	Status int             `json:"status"`
	Body   json.RawMessage `json:"body"`
}

// Server answers calls. It is an http.Handler for admins; Do answers other nodes.
type Server struct {
	backend Backend
	log     *slog.Logger
	token   func() [sha256.Size]byte
	mux     *http.ServeMux
}

// NewServer makes a Server. token returns the SHA-256 digest of the admin token that holds now.
func NewServer(b Backend, token func() [sha256.Size]byte, log *slog.Logger) *Server {
	s := &Server{backend: b, log: log, token: token, mux: http.NewServeMux()}
	s.routes()
	return s
}

// where says which node answers a call.
type where int

const (
	anywhere where = iota
	leader         // the leader
	asked          // the node named by the body's "node"
)

// handler answers a call here.
type handler func(ctx context.Context, r *http.Request, request string, body []byte) (any, error)

type forwardedKey struct{}

func (s *Server) handle(pattern string, at where, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), maxWait)
		defer cancel()
		answer, err := s.answer(ctx, r, at, h)
		if reply, ok := answer.(Reply); ok && err == nil {
			s.write(w, reply.Status, reply.Body)
			return
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.writeJSON(w, http.StatusOK, answer)
	})
}

// fail tells of an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e.Status >= 500 {
		s.log.Warn("API call failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	s.writeJSON(w, e.Status, envelope{e})
}

func (s *Server) answer(ctx context.Context, r *http.Request, at where, h handler) (any, error) {
	request := r.Header.Get("Idempotency-Key")
	if r.Method != http.MethodGet && (len(request) < 16 || len(request) > 64) {
		return nil, Errorf(ErrInvalid, "send 16 to 64 random characters, and the same when you repeat the call",
			"the call changes something and has no Idempotency-Key header")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, Errorf(ErrInvalid, "", "reading the body: %v", err)
	}
	if len(body) > 0 && !json.Valid(body) {
		return nil, Errorf(ErrInvalid, "", "the body is not JSON")
	}
	forwarded, _ := ctx.Value(forwardedKey{}).(bool)
	to := ""
	switch at {
	case leader:
		if s.backend.Leading() {
			return h(ctx, r, request, body)
		}
		if forwarded {
			return nil, Errorf(ErrNoLeader, "repeat the call in a few seconds", "the leader has changed")
		}
	case asked:
		var named struct{ Node string }
		if len(body) > 0 && json.Unmarshal(body, &named) != nil {
			return nil, Errorf(ErrInvalid, "", "the body is not what this call takes")
		}
		if to = named.Node; to == "" || s.backend.IsSelf(to) {
			return h(ctx, r, request, body)
		}
		if forwarded {
			return nil, Errorf(ErrNotFound, "", "this node is not %s", to)
		}
	default:
		return h(ctx, r, request, body)
	}
	return s.backend.Forward(ctx, to, Call{Method: r.Method, Path: r.URL.RequestURI(), Request: request, Body: body})
}

// ServeHTTP answers an admin, who must know the token.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	have, want := sha256.Sum256([]byte(given)), s.token()
	if want == [sha256.Size]byte{} { // a node that has just joined or started: another one may know, and this one soon
		e := Errorf(ErrNoLeader, "repeat the command in a few seconds, or ask another node", "this node does not know the admin token yet")
		s.writeJSON(w, e.Status, envelope{e})
		return
	}
	if !ok || subtle.ConstantTimeCompare(have[:], want[:]) != 1 {
		s.writeJSON(w, http.StatusUnauthorized, envelope{Errorf(ErrToken,
			"init wrote it into the file admin.token in its state directory; name that file with --token-file",
			"the admin token is missing or not this cluster's")})
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Do answers a call that another node has forwarded: it has checked the token.
func (s *Server) Do(ctx context.Context, c Call) Reply {
	ctx = context.WithValue(ctx, forwardedKey{}, true)
	r, err := http.NewRequestWithContext(ctx, c.Method, "https://node"+c.Path, bytes.NewReader(c.Body))
	if err != nil {
		b, _ := json.Marshal(envelope{Errorf(ErrInvalid, "", "%v", err)})
		return Reply{Status: http.StatusBadRequest, Body: b}
	}
	r.Header.Set("Idempotency-Key", c.Request)
	w := &recorder{header: http.Header{}}
	s.mux.ServeHTTP(w, r)
	if !json.Valid(w.body.Bytes()) { // the mux's own answers
		b, _ := json.Marshal(envelope{Errorf(ErrNotFound, "", "%s %s: %s", c.Method, c.Path, strings.TrimSpace(w.body.String()))})
		return Reply{Status: w.status, Body: b}
	}
	return Reply{Status: w.status, Body: w.body.Bytes()}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(s int)   { r.status = s }
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.body.Write(b)
}

func (s *Server) writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.log.Error("an answer cannot be encoded", "err", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"encoding the answer"}}`)
	}
	s.write(w, status, b)
}

func (s *Server) write(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b[:len(b):len(b)], '\n'))
}

// decode reads a body into v; keys that v does not have are refused.
func decode(body []byte, v any) error {
	if len(body) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			if typ.Field == "" {
				return Errorf(ErrInvalid, "docs/OPERATIONS.md has the bodies", "the body must be a JSON object, not %s", typ.Value)
			}
			return Errorf(ErrInvalid, "", "%s must be a %s, not %s", typ.Field, typ.Type, typ.Value)
		}
		return Errorf(ErrInvalid, "", "%s", strings.TrimPrefix(fmt.Sprint(err), "json: "))
	}
	return nil
}
