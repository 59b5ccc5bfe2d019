// Package replication keeps a rounds.Machine the same on every node of a cluster
// through any crash.
//
// A Node is one replica: hashicorp/raft with a log and snapshots on disk
// (package storage), one TLS port for everything between nodes, and a
// rounds.Machine that the log drives. Any node takes commands: Propose hands
// them to the leader, wherever that is, and returns when they are applied here.
//
// # Promise
//
// What Propose acknowledged is on the disks of a majority and is never lost;
// every node applies the same commands in the same order; a node whose state
// differs from the others' all the same (a broken machine, a bug) notices within
// seconds and stops serving; a node whose disk fails, hangs or gives back other
// bytes than it was given ends with one line. What cannot be known is said to be
// unknown (ErrIndeterminate): every command may be proposed again.
//
// DESIGN.md beside this file argues the choices, FORMAT.md describes what is on
// the disk.
package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/replication/encoding"
	"github.com/undertone-fl/undertone/server/replication/storage"
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
	// ErrOldMember says that a command was not proposed, as a member's program is of a
	// release that would halt at it.
	ErrOldMember = errors.New("replication: a member runs an older release")
	// ErrStopped says that the node was closed.
	ErrStopped = errors.New("replication: node stopped")
	// ErrUnknownNode says that no member has that name.
	ErrUnknownNode = errors.New("replication: unknown node")
	// ErrMembership says that a change of the membership was refused, and why.
	ErrMembership = errors.New("replication: membership unchanged")
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

	Heartbeat time.Duration // timeout of heartbeats, elections and the lease: 150 ms if zero
	Logger    *slog.Logger
	// NotReady, if set, adds the reasons of the parts above to Info.
	NotReady func() []string
	// Fatal is told why the node may not go on (a corrupt log, a full or hung
	// disk), and does not return. nil: log it, and exit with status 1.
	Fatal func(error)

	// DiskPatience is how long an access to the disk may take before it counts
	// as hung: 10 s if zero.
	DiskPatience time.Duration

	// Dial connects to other nodes, and Fault stands before every write to the
	// disk: for tests of partitions and of disks. nil in production.
	Dial  func(ctx context.Context, address string) (net.Conn, error)
	Fault storage.Fault
}

const (
	defaultHeartbeat = 150 * time.Millisecond
	// ioTimeout bounds a message to a node that is there but does not answer. It
	// is long enough for an entry's worth of messages on a slow line, and how
	// long a healed partition may go unnoticed.
	ioTimeout = 5 * time.Second
	// commitTimeout is how soon, at the latest twice over, followers learn that
	// an entry was committed when no other entry follows. The leader sends that
	// many messages when nothing happens; a proposal by way of a follower waits
	// for it.
	commitTimeout = 5 * time.Millisecond
)

// Node is one replica. Its methods may be called by any goroutine.
type Node struct {
	config   Config
	log      *slog.Logger
	dir      *storage.Directory
	replica  *replica
	raft     *raft.Raft
	shutdown func() raft.Future // stops raft; raft itself gives only the first who asks something to wait for
	wire     transport
	port     *port
	server   *grpc.Server
	peers    *peers
	counters counters

	stop chan struct{} // closed when the node stops, for whatever reason
	halt sync.Once     // closes stop
	wg   sync.WaitGroup

	failure  atomic.Pointer[error] // why it stopped, if it did not want to
	diverged atomic.Pointer[string]
	epoch    epoch // of the leader that raft knows
	joining  atomic.Pointer[string]
	// transferring tells watchTransfers that a command was refused for one.
	transferring chan struct{}
	consents     int // of a leader, to this node's membership; enter's
	// reads is the highest version of commands, as told to others; a test may lower it.
	reads atomic.Uint32
	older atomic.Pointer[[]string] // see Older
}

// Open starts a node, which recovers what its directory holds, and goes on to
// form, join or rejoin its cluster in the background. It owns the listener from
// then on, whether it fails or not.
func Open(c Config) (_ *Node, err error) {
	defer func() {
		if err != nil && c.Listener != nil {
			c.Listener.Close()
		}
	}()
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Node{config: c, log: c.Logger, stop: make(chan struct{}), transferring: make(chan struct{}, 1)}
	n.epoch.init()
	n.reads.Store(encoding.CommandVersion)
	n.replica = newReplica(n.fatal)
	logger := newRaftLogger(c.Logger)

	n.dir, err = storage.Open(c.Dir, storage.Owner{Cluster: c.Cluster, Node: c.Name}, storage.Options{
		Logger: logger, Fatal: n.fatal, Patience: c.DiskPatience, Fault: c.Fault,
	})
	if err != nil {
		return nil, err
	}
	abandon := func(err error) error { n.dir.Abandon(); return err }
	if err := n.restore(); err != nil {
		return nil, abandon(err)
	}

	n.port = newPort(c.Listener, c.Advertise, c.Cluster, c.Bearer, c.Dial, newStrangers(n.log).refuse)
	n.peers = newPeers(c.Cluster, c.Bearer, c.Dial)
	n.wire = transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: logger, Stream: streams{n.port.raft, n.port}, MaxPool: 3, Timeout: ioTimeout,
	})}
	n.raft, err = raft.NewRaft(raftConfig(c.Name, c.Heartbeat, logger), n.replica, n.dir.Log, n.dir.Log, n.dir.Snapshots, n.wire)
	if err != nil {
		n.port.close()
		return nil, abandon(fmt.Errorf("%s: %w", c.Dir, err))
	}
	n.shutdown = sync.OnceValue(n.raft.Shutdown)
	if !n.member() && c.Expect == 0 && len(c.Peers) == 0 {
		n.wire.Close()
		n.port.close()
		return nil, abandon(errors.Join(n.shutdown().Error(),
			errors.New("peers: the data directory is empty: say which members of a cluster to join, or with bootstrap-expect that there is to be a new one")))
	}
	n.observe()
	n.serve()
	if why := n.diverged.Load(); why != nil {
		n.log.Error("this node's state differed from the others': replace its data directory", "why", *why)
		n.shutdown()
		return n, nil
	}
	starting := "starting" // until enter has looked
	n.joining.Store(&starting)
	n.background(n.enter)
	n.background(n.compare)
	n.background(n.compact)
	n.background(n.watchTransfers)
	return n, nil
}

func (c *Config) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		log := c.Logger
		c.Fatal = func(err error) {
			log.Error("the node cannot go on", "error", err)
			os.Exit(1)
		}
	}
	if c.Listener == nil || c.Bearer == nil {
		return errors.New("replication: a node needs a listener and a certificate")
	}
	if c.Advertise == "" {
		c.Advertise = c.Listener.Addr().String()
	}
	if host, _, err := net.SplitHostPort(c.Advertise); err != nil {
		return fmt.Errorf("advertise: %q is not host:port", c.Advertise)
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("advertise: other nodes cannot reach %q: say under which host or address they can", c.Advertise)
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.Heartbeat < 20*time.Millisecond {
		return fmt.Errorf("heartbeat: %v is less than 20ms", c.Heartbeat)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if n := len(c.Cluster); n == 0 || n > 200 {
		return fmt.Errorf("cluster: a name of %d bytes, not 1 to 200", n)
	}
	id := c.Bearer.Identity()
	if id.Role != identity.Node {
		return fmt.Errorf("certificate: it is %s's: a node needs one with the role node", id)
	}
	if c.Name != id.Name {
		return fmt.Errorf("name: %q, but the certificate is node %q's", c.Name, id.Name)
	}
	if c.Expect < 0 {
		return fmt.Errorf("bootstrap-expect: %d is below zero", c.Expect)
	}
	if c.Expect > 0 && c.Learner {
		return errors.New("learner: a learner joins a cluster, it does not form one: leave bootstrap-expect out")
	}
	if c.Expect > 1 && len(c.Peers) == 0 {
		return fmt.Errorf("peers: to form a cluster of %d nodes, say where the others are", c.Expect)
	}
	return nil
}

func raftConfig(name string, heartbeat time.Duration, logger *raftLogger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(name)
	c.HeartbeatTimeout = heartbeat
	c.ElectionTimeout = heartbeat
	c.LeaderLeaseTimeout = heartbeat
	c.CommitTimeout = commitTimeout
	c.BatchApplyCh = true // a batch is one write to the disk
	c.ShutdownOnRemove = false
	c.SnapshotThreshold = snapshotEntries
	c.SnapshotInterval = snapshotInterval
	c.TrailingLogs = trailingEntries
	c.NoSnapshotRestoreOnStart = true // see restore
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// restore loads the latest snapshot. raft would go back to an older one if that
// one is damaged, and then miss the entries between.
func (n *Node) restore() error {
	why, err := n.dir.Diverged()
	if err != nil {
		return err
	}
	if why != "" {
		n.diverged.Store(&why)
	}
	meta, r, err := n.dir.Snapshots.Latest()
	if meta == nil || err != nil {
		return err
	}
	defer r.Close()
	if err := n.replica.load(r); err != nil {
		return fmt.Errorf("%s: snapshot %s: %w", n.config.Dir, meta.ID, err)
	}
	return nil
}

// background runs f until it returns, which it does when the node stops.
func (n *Node) background(f func()) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		f()
	}()
}

// fatal ends the node: nothing is served from here on, and the goroutine that
// found out goes no further.
func (n *Node) fatal(err error) {
	if n.failure.CompareAndSwap(nil, &err) {
		n.halt.Do(func() { close(n.stop) })
		n.config.Fatal(err)
	}
	select {}
}

// usable returns why the node does not serve, nil if it does.
func (n *Node) usable() error {
	select {
	case <-n.stop:
		return ErrStopped
	default:
	}
	if n.diverged.Load() != nil {
		return ErrDiverged
	}
	return nil
}

// Close hands leadership on, if it is this node's, and stops. If ctx ends first,
// the directory is given up as by a crash.
func (n *Node) Close(ctx context.Context) error {
	if n.usable() == nil && n.raft.State() == raft.Leader {
		if err := n.await(ctx, n.raft.LeadershipTransfer()); err != nil {
			n.log.Info("leadership was not handed on", "error", err)
		}
	}
	closed := false
	n.halt.Do(func() { close(n.stop); closed = true })
	n.server.Stop()
	n.peers.close()
	// The transport first: raft's main loop may wait for it.
	n.wire.Close()
	n.wire.CloseStreams()
	n.port.close()
	down := make(chan error, 1)
	go func() {
		err := n.shutdown().Error()
		n.wg.Wait()
		down <- err
	}()
	if !closed && n.failure.Load() != nil {
		n.dir.Abandon() // raft may never come back
		return nil
	}
	select {
	case err := <-down:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		n.dir.Abandon()
		return ctx.Err()
	}
	if !closed {
		return nil // for the second time
	}
	return n.dir.Close()
}

// View calls f with the state as applied, which f may neither change nor keep,
// and the index of the last command applied. Commands are not applied meanwhile.
func (n *Node) View(f func(m *rounds.Machine, index uint64)) { n.replica.view(f) }

// WaitIndex waits until the command at index, which Propose or View returned on
// whatever node, is applied.
func (n *Node) WaitIndex(ctx context.Context, index uint64) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.replica.wait(ctx, n.stop, index)
}

// Changed returns a channel that is closed at the next change of the state or of
// leadership.
func (n *Node) Changed() <-chan struct{} { return n.replica.change() }

// Leading reports whether this node leads, and in which term. It may be out of
// date: what it proposes then fails.
func (n *Node) Leading() (bool, uint64) {
	if n.usable() != nil {
		return false, n.raft.CurrentTerm()
	}
	return n.raft.State() == raft.Leader, n.raft.CurrentTerm()
}

// behind is how many committed entries may wait to be applied before the node
// counts as not ready.
const behind = 1024

// NotReady says, part by part, why the node cannot serve: "no leader", "log is
// being replayed"; nil if it can.
func (n *Node) NotReady() []string {
	if err := n.failure.Load(); err != nil {
		return []string{"failed: " + (*err).Error()}
	}
	switch n.usable() {
	case ErrStopped:
		return []string{"stopped"}
	case ErrDiverged:
		return []string{"state differs from the other nodes': " + *n.diverged.Load()}
	}
	var why []string
	if reason := n.joining.Load(); reason != nil {
		why = append(why, *reason)
	}
	if _, ok := n.lookup(n.config.Name); !ok && n.member() {
		why = append(why, "not a member of the cluster any more")
	}
	if leader, _ := n.raft.LeaderWithID(); leader == "" {
		why = append(why, "no leader")
	}
	if n.raft.CommitIndex() > n.raft.AppliedIndex()+behind {
		why = append(why, "log is being replayed")
	}
	return why
}

// reasons are NotReady's and those of the parts above.
func (n *Node) reasons() []string {
	why := n.NotReady()
	if n.config.NotReady != nil {
		why = append(why, n.config.NotReady()...)
	}
	return why
}

// observe follows who leads.
func (n *Node) observe() {
	events := make(chan raft.Observation, 16)
	o := raft.NewObserver(events, true, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(o)
	n.background(func() {
		for {
			select {
			case <-events:
				n.epoch.next()
				n.replica.mu.Lock()
				n.replica.wake()
				n.replica.mu.Unlock()
			case <-n.stop:
				n.raft.DeregisterObserver(o)
				return
			}
		}
	})
}

// epoch is a context that ends when somebody else leads, so that nobody waits
// for a leader that was.
type epoch struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
}

func (e *epoch) init() { e.ctx, e.cancel = context.WithCancel(context.Background()) }

func (e *epoch) next() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel()
	e.init()
}

func (e *epoch) current() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctx
}
