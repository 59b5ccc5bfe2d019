package replication

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/replication/storage"
)

// patience is how long a test waits for what must come about. Nothing is
// measured by it.
const patience = 30 * time.Second

// cluster is nodes in this process, on loopback.
type cluster struct {
	t         testing.TB
	authority *authority.Authority
	dir       string
	nodes     map[string]*member
	heartbeat time.Duration

	mu    sync.Mutex
	names map[string]string // of addresses
	cut   map[string]bool   // names that nobody reaches, and that reach nobody
	conns map[net.Conn]bool
}

// member is a place for a node: it keeps its directory and its address while
// nodes come and go.
type member struct {
	*Node
	c       *cluster
	name    string
	address string
	fatal   chan error
	closed  bool

	mu    sync.Mutex
	fault func(storage.Op) error
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, authority: a, dir: t.TempDir(), nodes: map[string]*member{},
		names: map[string]string{}, cut: map[string]bool{}, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.close()
		}
	})
	return c
}

// given are the addresses that freeAddress has given out.
var given sync.Map

// freeAddress is one that no other test has, on which nothing listens, and
// where, if loopback has more than one address, no connection ever begins.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, taken := given.LoadOrStore(l.Addr().String(), true); !taken {
			return l.Addr().String()
		}
	}
}

// place makes room for a node, without starting it.
func (c *cluster) place(name string) *member {
	c.t.Helper()
	m := &member{
		c: c, name: name, address: freeAddress(c.t), closed: true,
		fatal: make(chan error, 1),
	}
	m.moved()
	c.nodes[name] = m
	return m
}

// moved tells the cluster of the member's address.
func (m *member) moved() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.names[m.address] = m.name
}

func (m *member) dir() string { return filepath.Join(m.c.dir, m.name) }

func (m *member) config() Config {
	m.c.t.Helper()
	b, err := m.c.authority.Bearer(identity.Node, m.name, "127.0.0.1", "127.0.0.2")
	if err != nil {
		m.c.t.Fatal(err)
	}
	var l net.Listener
	for deadline := time.Now().Add(patience); ; {
		if l, err = net.Listen("tcp", m.address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			m.c.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("UNDERTONE_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", m.name)
	}
	return Config{
		Name: m.name, Cluster: "test", Dir: m.dir(), Listener: l, Bearer: b,
		Version: "v0", APIAddress: "api." + m.name, Logger: logger, Heartbeat: m.c.heartbeat,
		Dial: m.dial, Fault: func(op storage.Op) error {
			m.mu.Lock()
			f := m.fault
			m.mu.Unlock()
			if f == nil {
				return nil
			}
			return f(op)
		},
		Fatal: func(err error) {
			m.fatal <- err
			select {}
		},
	}
}

// open starts the node, or fails as Open does.
func (m *member) open(change ...func(*Config)) error {
	c := m.config()
	for _, f := range change {
		f(&c)
	}
	n, err := Open(c)
	if err == nil {
		m.Node, m.closed = n, false
	}
	return err
}

func (m *member) start(change ...func(*Config)) *member {
	m.c.t.Helper()
	if err := m.open(change...); err != nil {
		m.c.t.Fatal(err)
	}
	return m
}

func (m *member) close() {
	if m.closed {
		return
	}
	m.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.Node.Close(ctx); err != nil {
		m.c.t.Errorf("close %s: %v", m.name, err)
	}
}

// expect n has a node form a cluster with the other nodes placed so far.
func expect(n int) func(*Config) {
	return func(c *Config) { c.Expect = n }
}

func (c *cluster) peers() (out []string) {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range c.nodes {
			if !yield(name) {
				return
			}
		}
	}) {
		out = append(out, c.nodes[name].address)
	}
	return out
}

// form starts a cluster of nodes a, b, c...
func (c *cluster) form(n int, change ...func(*Config)) {
	c.t.Helper()
	for i := range n {
		c.place(string(rune('a' + i)))
	}
	peers := c.peers()
	for i := range n {
		c.nodes[string(rune('a'+i))].start(append([]func(*Config){expect(n), func(c *Config) { c.Peers = peers }}, change...)...)
	}
	c.leader()
	c.wait("all nodes ready", func() bool {
		for _, m := range c.nodes {
			if len(m.NotReady()) > 0 {
				return false
			}
		}
		return true
	})
}

// wait polls until something holds.
func (c *cluster) wait(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			c.t.Fatalf("waited in vain: %s\n%s", what, buf[:runtime.Stack(buf, os.Getenv("UNDERTONE_TEST_LOG") != "")])
		}
	}
}

// leader waits for a node that knows that it leads.
func (c *cluster) leader() (l *member) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.wait("a leader", func() bool {
		for _, m := range c.nodes {
			if m.Node == nil || m.closed || c.isCut(m.name) {
				continue
			}
			if leads, _ := m.Leading(); leads && m.Verify(ctx) == nil {
				l = m
				return true
			}
		}
		return false
	})
	return l
}

// follower is some node that does not lead and is there.
func (c *cluster) follower() *member {
	c.t.Helper()
	l := c.leader()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if m := c.nodes[name]; m != nil && m != l && !m.closed && !c.isCut(name) {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func (c *cluster) isCut(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut[name]
}

// partition cuts a node off from all others; heal ends it.
func (m *member) partition() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.cut[m.name] = true
	for conn := range m.c.conns {
		conn.Close() // nodes connect anew where they may
	}
	clear(m.c.conns)
}

func (m *member) heal() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	delete(m.c.cut, m.name)
}

var errCut = errors.New("cut off")

func (m *member) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut[m.name] || c.cut[c.names[address]] {
		conn.Close()
		return nil, errCut
	}
	c.conns[conn] = true
	return conn, nil
}

// The job that tests run: rounds of up to a million contributions of a few
// coordinates, of which a contribution adds 1 to each.

const coordinates = 8

func testSpec(t testing.TB, job string) *rounds.Spec {
	s := &rounds.Spec{
		Job: job, Method: "adding", Parameters: json.RawMessage("{}"),
		Lattice: dp.Lattice{ScaleBits: 4, ModulusBits: 32}, Trust: rounds.TrustDistributed,
		NMin: 2, RoundSize: 1_000_000, Deadline: 1000, Delta: 1e-6, Budget: 1_000_000_000,
	}
	for range 100 {
		s.Releases = append(s.Releases, rounds.Release{
			Kind: "sum", Length: coordinates, Bound: 100, Sigma: noise.MinSigma, Largest: 1000, Charge: 1000,
		})
	}
	return s
}

func createJob(t testing.TB, job string) rounds.CreateJob {
	b, err := json.Marshal(testSpec(t, job))
	if err != nil {
		t.Fatal(err)
	}
	return rounds.CreateJob{Spec: b, State: rounds.BlobOf([]byte("state 0"))}
}

// contribution i of a round.
func contribution(job string, round, attempt, i int) rounds.Collect {
	var id rounds.ClientID
	binary.LittleEndian.PutUint64(id[:], uint64(i))
	ones := make([]int64, coordinates)
	for i := range ones {
		ones[i] = 1
	}
	return rounds.Collect{
		Job: job, Round: round, Attempt: attempt, Members: []rounds.ClientID{id},
		Sum: rounds.BlobOf(aggregation.Pack(nil, ones, 4)),
	}
}

// outcome proposes until the outcome is known.
func (m *member) outcome(c rounds.Command) (index uint64, doubt bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		index, err = m.Propose(ctx, c)
		switch {
		case ctx.Err() != nil:
			return index, doubt, err
		case errors.Is(err, ErrIndeterminate):
			doubt = true
		case !errors.Is(err, ErrNoLeader):
			return index, doubt, err
		}
	}
}

// propose is outcome as a caller takes it: once it was in doubt, to be counted
// already is to have succeeded.
func (m *member) propose(c rounds.Command) (uint64, error) {
	index, doubt, err := m.outcome(c)
	if doubt && (isRefused(err, rounds.Counted) || isRefused(err, rounds.AlreadyOpen)) {
		err = nil
	}
	return index, err
}

// again proposes what was applied before, and returns the refusal.
func (m *member) again(c rounds.Command) error {
	_, _, err := m.outcome(c)
	return err
}

func (m *member) must(commands ...rounds.Command) (index uint64) {
	m.c.t.Helper()
	for _, c := range commands {
		var err error
		if index, err = m.propose(c); err != nil {
			m.c.t.Fatalf("%T: %v", c, err)
		}
	}
	return index
}

// begin creates the job and opens its first round.
func (m *member) begin() {
	m.c.t.Helper()
	m.must(createJob(m.c.t, "job"), rounds.Run{Job: "job"}, rounds.OpenRound{Job: "job", Round: 1, Attempt: 1})
}

// members is how many contributions a node has in the last attempt.
func (m *member) members() (n int) {
	m.View(func(machine *rounds.Machine, _ uint64) {
		if j, ok := machine.Job("job"); ok && len(j.Attempts) > 0 {
			n = j.Attempts[len(j.Attempts)-1].Members
		}
	})
	return n
}

// job is the job as a node has it; nothing may be applied while it is looked at.
func (m *member) job() (job rounds.JobView) {
	m.View(func(machine *rounds.Machine, _ uint64) { job, _ = machine.Job("job") })
	return job
}

// led does what needs a leader until there is one.
func led(f func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if err := f(); !errors.Is(err, ErrNoLeader) || time.Now().After(deadline) {
			return err
		}
	}
}

// agree waits until all nodes that run hold the same state.
func (c *cluster) agree() {
	c.t.Helper()
	index := c.leader().must(rounds.Run{Job: "job"})
	c.wait("the same state on all nodes", func() bool {
		hashes := map[rounds.Digest]bool{}
		for _, m := range c.nodes {
			if m.Node == nil || m.closed {
				continue
			}
			last := m.replica.last()
			if last.index < index {
				return false
			}
			hashes[last.hash] = true
		}
		return len(hashes) == 1
	})
}
