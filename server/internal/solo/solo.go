// Package solo is a replica without replication: the real state machine behind
// the methods of replication.Node, in memory, for tests of what is built on it.
package solo

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication"
)

// Node applies what is proposed.
type Node struct {
	// Around, if set, stands between a proposal and the machine: it calls apply
	// or does not, and returns what the proposer is told.
	Around func(c rounds.Command, apply func() (uint64, error)) (uint64, error)

	mu      sync.Mutex
	machine *rounds.Machine
	index   uint64
	changed chan struct{}
	leading bool
	term    uint64
	why     []string
	log     []rounds.Command
}

// New returns a node that leads.
func New() *Node {
	return &Node{machine: rounds.NewMachine(), changed: make(chan struct{}), leading: true, term: 1}
}

// Propose implements what replication.Node does.
func (n *Node) Propose(ctx context.Context, c rounds.Command) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if n.Around != nil {
		return n.Around(c, func() (uint64, error) { return n.apply(c) })
	}
	return n.apply(c)
}

func (n *Node) apply(c rounds.Command) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.index++
	dated, ok := c.(rounds.Dated)
	if !ok {
		dated = rounds.Dated{At: epoch + 1000*int64(n.index), Command: c}
	}
	_, err := n.machine.Apply(dated)
	if err == nil {
		n.log = append(n.log, clone(c))
	}
	n.notify()
	return n.index, err
}

func clone(c rounds.Command) rounds.Command {
	if c, ok := c.(rounds.Collect); ok {
		c.Members = append([]rounds.ClientID(nil), c.Members...)
		c.Sum.Bytes = append([]byte(nil), c.Sum.Bytes...)
		return c
	}
	return c
}

// Applied returns the commands that were applied and not refused.
func (n *Node) Applied() []rounds.Command {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]rounds.Command(nil), n.log...)
}

func (n *Node) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// StageBlob returns the bytes inline, whatever their size.
func (n *Node) StageBlob(_ context.Context, _ string, _, _ int, b []byte) (rounds.Blob, error) {
	return rounds.BlobOf(b), nil
}

// View implements what replication.Node does.
func (n *Node) View(f func(m *rounds.Machine, index uint64)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.machine, n.index)
}

// Barrier implements service.Node.
func (n *Node) Barrier(context.Context) (index uint64, err error) {
	n.View(func(_ *rounds.Machine, i uint64) { index = i })
	return index, nil
}

// WaitIndex implements what replication.Node does.
func (n *Node) WaitIndex(ctx context.Context, index uint64) error {
	for {
		n.mu.Lock()
		applied, changed := n.index, n.changed
		n.mu.Unlock()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changed implements what replication.Node does.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Leading implements what replication.Node does.
func (n *Node) Leading() (bool, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leading, n.term
}

// Lead takes leadership up in a new term, or gives it up.
func (n *Node) Lead(leading bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leading = leading
	n.term++
	n.notify()
}

// NotReady implements what replication.Node does.
func (n *Node) NotReady() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.why
}

// SetNotReady is what NotReady returns from now on.
func (n *Node) SetNotReady(why ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.why = why
	n.notify()
}

// Members is this node alone.
func (n *Node) Members(context.Context) ([]replication.Member, error) {
	leading, term := n.Leading()
	return []replication.Member{{Name: "solo", Voter: true, Leader: leading, Term: term, Reachable: true}}, nil
}

// RemoveNode does nothing.
func (n *Node) RemoveNode(context.Context, string) error { return nil }

// PromoteNode does nothing.
func (n *Node) PromoteNode(context.Context, string) error { return nil }

// TransferLeadership finds nobody.
func (n *Node) TransferLeadership(context.Context, string) error { return replication.ErrNoLeader }

// Backup writes nothing that could be restored.
func (n *Node) Backup(_ context.Context, w io.Writer) error {
	_, err := w.Write(make([]byte, 300<<10))
	return err
}

// Attempt waits until a job's last attempt is the given one in the given phase,
// and returns it; ok is false if it is not within half a minute.
func (n *Node) Attempt(job string, round, attempt int, phase rounds.Phase) (a rounds.Attempt, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for index := uint64(1); ; index++ {
		n.View(func(m *rounds.Machine, i uint64) {
			index = i
			j, _ := m.Job(job)
			for _, x := range j.Attempts {
				if x.Round == round && x.Attempt == attempt && x.Phase == phase {
					a, ok = x, true
				}
			}
		})
		if ok || n.WaitIndex(ctx, index+1) != nil {
			return a, ok
		}
	}
}
