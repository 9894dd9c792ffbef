// Package ids has the identities that outlive names and addresses: of clusters, nodes, pools and volumes.
// Each is 16 random bytes (never derived from a name or an address), written as 32 lower-case hexadecimal digits.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrSyntax is returned when a text is not 32 hexadecimal digits.
var ErrSyntax = errors.New("an id is 32 hexadecimal digits")

// ID is the common form of all identities. The zero ID means "none".
type ID [16]byte

// The kinds of identity. They are distinct types so that one is never taken for another.
type (
	// Cluster names a cluster for ever; it is made by init.
	Cluster ID
	// Lineage names one history of a catalog or of a volume (ARCHITECTURE.md, Words).
	Lineage ID
	// Node names one Raft identity of one machine; a node that lost its catalog disk gets a new one (invariant 9).
	Node ID
	// Pool names one directory or device that holds replicas.
	Pool ID
	// Volume names one replicated block device.
	Volume ID
)

// New returns a random ID.
func New() ID {
	var id ID
	rand.Read(id[:]) // never fails: crypto/rand aborts the process instead
	return id
}

// NewNode returns a random node id; likewise the others.
func NewNode() Node       { return Node(New()) }
func NewCluster() Cluster { return Cluster(New()) }
func NewLineage() Lineage { return Lineage(New()) }
func NewPool() Pool       { return Pool(New()) }
func NewVolume() Volume   { return Volume(New()) }

// Parse reads 32 hexadecimal digits. It returns ErrSyntax for anything else.
func Parse(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	return id, nil
}

func (id ID) String() string               { return hex.EncodeToString(id[:]) }
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = Parse(string(b))
	return err
}
func (id ID) IsZero() bool { return id == ID{} }

func (c Cluster) String() string                { return ID(c).String() }
func (c Cluster) IsZero() bool                  { return ID(c).IsZero() }
func (c Cluster) MarshalText() ([]byte, error)  { return ID(c).MarshalText() }
func (c *Cluster) UnmarshalText(b []byte) error { return (*ID)(c).UnmarshalText(b) }
func (l Lineage) String() string                { return ID(l).String() }
func (l Lineage) IsZero() bool                  { return ID(l).IsZero() }
func (l Lineage) MarshalText() ([]byte, error)  { return ID(l).MarshalText() }
func (l *Lineage) UnmarshalText(b []byte) error { return (*ID)(l).UnmarshalText(b) }
func (n Node) String() string                   { return ID(n).String() }
func (n Node) IsZero() bool                     { return ID(n).IsZero() }
func (n Node) MarshalText() ([]byte, error)     { return ID(n).MarshalText() }
func (n *Node) UnmarshalText(b []byte) error    { return (*ID)(n).UnmarshalText(b) }
func (p Pool) String() string                   { return ID(p).String() }
func (p Pool) IsZero() bool                     { return ID(p).IsZero() }
func (p Pool) MarshalText() ([]byte, error)     { return ID(p).MarshalText() }
func (p *Pool) UnmarshalText(b []byte) error    { return (*ID)(p).UnmarshalText(b) }
func (v Volume) String() string                 { return ID(v).String() }
func (v Volume) IsZero() bool                   { return ID(v).IsZero() }
func (v Volume) MarshalText() ([]byte, error)   { return ID(v).MarshalText() }
func (v *Volume) UnmarshalText(b []byte) error  { return (*ID)(v).UnmarshalText(b) }
