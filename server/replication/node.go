// Package replication keeps a rounds.Machine the same on every node of a cluster
// through any crash. To be documented with what is built.
package replication

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
)

// Errors of Propose and the waits. A *rounds.Refusal is one too: the command
// was applied to the log, and refused by the state machine.
var (
	// ErrNoLeader says that the command was not appended: there is no leader to
	// be reached.
	ErrNoLeader = errors.New("replication: no leader")
	// ErrIndeterminate says that the command may or may not have been applied,
	// or may yet be. Every command may be proposed again.
	ErrIndeterminate = errors.New("replication: outcome unknown")
	// ErrDiverged says that this node's state differs from the others'. It
	// serves nobody until its data directory is replaced.
	ErrDiverged = errors.New("replication: this node's state differs from the others'")
	// ErrStopped says that the node was closed.
	ErrStopped = errors.New("replication: node stopped")
)

// Config of a node. Zero durations and sizes take the defaults.
type Config struct {
	Name       string       // unique in the cluster; the certificate's
	Cluster    string       // nodes of another cluster's name are refused
	Dir        string       // data directory; created, locked, versioned
	Listener   net.Listener // of the node port, plain TCP; the node speaks TLS on it
	Advertise  string       // host:port where other nodes reach it; Listener's if empty
	APIAddress string       // told to others
	Version    string       // told to others
	Bearer     *identity.Bearer

	// Expect > 0: form a new cluster as soon as this many nodes, found through
	// Peers, are there. 1 forms it alone.
	Expect int
	// Peers are node addresses: those to form a cluster with, or members of one
	// to join.
	Peers   []string
	Learner bool // join without a vote

	Heartbeat time.Duration // and election timeout; the lease is half of it
	Logger    *slog.Logger
	// NotReady, if set, adds the reasons of the parts above to Info.
	NotReady func() []string
	// Fatal is told why the node may not go on (a corrupt log, a full or hung
	// disk), and does not return. nil: log it, and exit with status 1.
	Fatal func(error)
}

// Node is one replica. Its methods may be called by any goroutine.
type Node struct{}

// Open starts a node, which recovers what its directory holds, and goes on to
// form, join or rejoin its cluster in the background.
func Open(c Config) (*Node, error) { panic("replication: to be built") }

// Close hands leadership on, if it is this node's, and stops.
func (n *Node) Close(ctx context.Context) error { panic("replication: to be built") }

// Propose commits a command through the leader, wherever that is, and returns
// once it is applied on this node too: index is where. Fails with a
// *rounds.Refusal, or one of the errors above, or ctx's.
func (n *Node) Propose(ctx context.Context, c rounds.Command) (index uint64, err error) {
	panic("replication: to be built")
}

// StageBlob stages bytes in pieces that a log entry holds, for a command that
// refers to them by digest. Blobs up to InlineLimit need not be staged: it
// returns them inline.
func (n *Node) StageBlob(ctx context.Context, job string, round, attempt int, b []byte) (rounds.Blob, error) {
	panic("replication: to be built")
}

// View calls f with the state as applied, which f may neither change nor keep,
// and the index of the last entry applied. Entries are not applied meanwhile.
func (n *Node) View(f func(m *rounds.Machine, index uint64)) { panic("replication: to be built") }

// WaitIndex waits until index is applied.
func (n *Node) WaitIndex(ctx context.Context, index uint64) error { panic("replication: to be built") }

// Changed returns a channel that is closed at the next change of the state or of
// leadership.
func (n *Node) Changed() <-chan struct{} { panic("replication: to be built") }

// Verify returns once this node is known to lead and to have applied everything
// that was committed before the call; ErrNoLeader if it does not lead.
func (n *Node) Verify(ctx context.Context) error { panic("replication: to be built") }

// Leading reports whether this node leads, and in which term. It may be out of
// date: what it proposes then fails.
func (n *Node) Leading() (bool, uint64) { panic("replication: to be built") }

// Member is a node as the cluster knows it, and as it answered.
type Member struct {
	Name, Address string
	Voter, Leader bool
	Reachable     bool
	Applied, Term uint64
	Hash          rounds.Digest
	Diverged      bool
	Version       string
	APIAddress    string
	NotReady      []string
}

// Members asks every node.
func (n *Node) Members(ctx context.Context) ([]Member, error) { panic("replication: to be built") }

// NotReady says, part by part, why the node cannot serve: "no leader", "log is
// being replayed"; nil if it can.
func (n *Node) NotReady() []string { panic("replication: to be built") }

// RemoveNode, PromoteNode and TransferLeadership change the membership, through
// the leader.
func (n *Node) RemoveNode(ctx context.Context, name string) error  { panic("replication: to be built") }
func (n *Node) PromoteNode(ctx context.Context, name string) error { panic("replication: to be built") }
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	panic("replication: to be built")
}

// Backup writes a snapshot of everything committed before the call.
func (n *Node) Backup(ctx context.Context, w io.Writer) error { panic("replication: to be built") }

// RestoreBackup makes a data directory, which must be empty, out of a backup:
// that of the first node of a new cluster with the same jobs.
func RestoreBackup(dir string, name, address string, backup io.Reader) error {
	panic("replication: to be built")
}

// Recover rewrites the membership in the data directory of a stopped node, after
// a majority was lost: the members are the ones given, by name and address. What
// the lost nodes alone had acknowledged is gone.
func Recover(dir string, members map[string]string) error { panic("replication: to be built") }
