package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Force is the body of POST /v1/volumes/{name}/force.
type Force struct {
	// Replica is the name of the node whose replica the volume is to go on with, and Pool, if the node has several, the path of its pool, or its id. With an
	// empty Replica nothing is done, and the answer lists what there is.
	Replica string `json:"replica"`
	Pool    string `json:"pool,omitempty"`
	Confirm string `json:"confirm,omitempty"` // the volume's name; without it nothing is done, and the answer says what would be
	// Incomplete allows a replica that is no copy of any one moment: it was never in sync, or a resync to it was begun and did not end.
	// After a restore it allows one that another has on record as not in sync.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Forced says what it means to force a volume, and whether it was done.
type Forced struct {
	Volume   string         `json:"volume"`
	Replica  string         `json:"replica,omitempty"` // the node's name
	Done     bool           `json:"done"`
	Loss     string         `json:"loss,omitempty"`      // what is lost
	Running  string         `json:"running,omitempty"`   // what may still be running
	MayServe []string       `json:"may_serve,omitempty"` // nodes that may still serve the volume
	Replicas []ForceReplica `json:"replicas,omitempty"`
	Restored bool           `json:"restored,omitempty"` // the volume is as a backup of the catalog has it
	Unseen   []string       `json:"unseen,omitempty"`   // where a newer replica may be that was not looked at, after a restore
	Why      string         `json:"why,omitempty"`      // it cannot be adopted
}

// ForceReplica is a replica that the volume might go on with.
type ForceReplica struct {
	Node    string `json:"node"`
	Pool    string `json:"pool"` // its path
	PoolID  string `json:"pool_id"`
	InSync  bool   `json:"in_sync"` // by the catalog: it has every acknowledged write. After a restore: it had, when the backup was made
	Reached bool   `json:"reached"`
	Epoch   uint64 `json:"epoch"` // the newest that its pool had accepted before this leader's; 0: not known
	// Left is when it left the in-sync set, by a leader's clock, and LeftEpoch the epoch under which it was last served with it. Zero
	// if it is in the set, or never was in this lineage.
	Left       time.Time `json:"left,omitzero"`
	LeftEpoch  uint64    `json:"left_epoch,omitempty"`
	Incomplete bool      `json:"incomplete,omitempty"` // it is no copy of any one moment
	Reverted   bool      `json:"reverted,omitempty"`   // its pool was put back to a state before it was last served
	Size       int64     `json:"size,omitempty"`       // bytes; what the volume has more would read as zeros
	Marked     int64     `json:"marked,omitempty"`     // bytes of regions in which writes may be there in part
	Why        string    `json:"why,omitempty"`        // it cannot be adopted
	// After a restore: the nodes whose replicas have it on record as not in sync, those whose replicas were in sync with it to the end, and those
	// whose replicas it has on record as in sync, but nobody has found; the highest sequence of a mark that it ever had (of two of one history the
	// older one has the lower, as a rule), and whether it is of another history than the backup has it in, an older or a newer one.
	DoubtedBy []string `json:"doubted_by,omitempty"`
	With      []string `json:"with,omitempty"`
	Missing   []string `json:"missing,omitempty"`
	Silent    bool     `json:"silent,omitempty"` // it was found, and did not say what it knows
	Marks     uint64   `json:"marks,omitempty"`
	Other     bool     `json:"other_history,omitempty"`
}

// Adopt is the body of POST /v1/volumes/{id}/adopt.
type Adopt struct {
	Name       string `json:"name"`
	Logical    int    `json:"logical_block,omitempty"` // bytes, 512 (the default) or 4096: what it was created with
	Durability string `json:"durability,omitempty"`    // "disk" (the default) or "memory"
}

// Withdraw is the body of POST /v1/volumes/{name}/withdraw.
type Withdraw struct {
	Confirm string `json:"confirm,omitempty"` // the volume's name; without it nothing is done, and the answer says what would be
}

// Withdrawn says what it means to end the exports of a volume that is not served, and whether it was done.
type Withdrawn struct {
	Volume   string   `json:"volume"`
	Done     bool     `json:"done"`
	Exports  []string `json:"exports"`             // what ends
	Running  string   `json:"running,omitempty"`   // what may still be running
	MayServe []string `json:"may_serve,omitempty"` // nodes that may still serve the volume
}

func (s *Server) forceRoutes() {
	s.handle("POST /v1/volumes/{name}/withdraw", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var w Withdraw
		if err := decode(body, &w); err != nil {
			return nil, err
		}
		return s.backend.WithdrawVolume(ctx, request, r.PathValue("name"), w)
	})
	s.handle("POST /v1/volumes/{id}/adopt", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var a Adopt
		if err := decode(body, &a); err != nil {
			return nil, err
		}
		return s.backend.AdoptVolume(ctx, request, r.PathValue("id"), a)
	})
	s.handle("POST /v1/volumes/{name}/force", leader, func(ctx context.Context, r *http.Request, request string, body []byte) (any, error) {
		var f Force
		if err := decode(body, &f); err != nil {
			return nil, err
		}
		return s.backend.ForceVolume(ctx, request, r.PathValue("name"), f)
	})
}

// WithdrawVolume ends the exports of a volume that is not served.
func (c *Client) WithdrawVolume(ctx context.Context, name string, w Withdraw) (out Withdrawn, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(name)+"/withdraw", w, &out)
}

// AdoptVolume brings a volume that a restored catalog does not know back into it; it waits for ForceVolume then.
func (c *Client) AdoptVolume(ctx context.Context, id string, a Adopt) (v Volume, err error) {
	return v, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(id)+"/adopt", a, &v)
}

// ForceVolume has a volume whose in-sync replicas are out of reach go on with another.
func (c *Client) ForceVolume(ctx context.Context, name string, f Force) (out Forced, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(name)+"/force", f, &out)
}
