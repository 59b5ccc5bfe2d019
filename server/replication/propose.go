package replication

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/raft"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

const (
	// InlineLimit is the largest blob that a command carries itself.
	InlineLimit = 128 << 10
	// pieceSize is how much of a larger blob one entry stages.
	pieceSize = 256 << 10
	// maxEntry bounds a log entry: raft sends heartbeats and entries over the
	// same lines, and leaders that were busy with entries of megabytes lose
	// their followers.
	maxEntry = 512 << 10

	// enqueueTimeout is how long a command may wait for the leader to take it
	// up; what happens then takes as long as it takes.
	enqueueTimeout = time.Second
	// electionPatience is how long Propose looks for a leader, at the least.
	electionPatience = 3 * time.Second
)

// Propose commits a command through the leader, wherever that is, and returns
// once it is applied on this node too: index is where. Fails with a
// *rounds.Refusal, or one of the errors above, or ctx's. What the ledger may record
// is dated.
func (n *Node) Propose(ctx context.Context, c rounds.Command) (index uint64, err error) {
	if err := n.understood(ctx, c); err != nil {
		return 0, err
	}
	data, err := encoding.MarshalCommand(n.date(c))
	if err != nil {
		return 0, err
	}
	if len(data) > maxEntry {
		return 0, fmt.Errorf("replication: a command of %d bytes, of which an entry holds %d: stage its blob", len(data), maxEntry)
	}
	start := time.Now()
	index, err = n.propose(ctx, data)
	if err == nil {
		n.counters.committed(time.Since(start))
	}
	return index, err
}

// date gives a command its time by this node's clock, if there is a ledger that may
// record it: without one the log stays such that older programs read it.
func (n *Node) date(c rounds.Command) rounds.Command {
	switch c.(type) {
	case rounds.Collect, rounds.Stage, rounds.Run, rounds.Dated:
		return c // the many, and those of which nothing is recorded
	case rounds.BeginLedger:
	default:
		if !n.hasLedger() {
			return c
		}
	}
	return rounds.Dated{At: time.Now().UnixMilli(), Command: c}
}

func (n *Node) hasLedger() (yes bool) {
	n.View(func(m *rounds.Machine, _ uint64) { yes = m.Ledger() != nil })
	return yes
}

// understood holds commands of a new version back while a member that can be reached
// would halt at them, as in the middle of a rolling upgrade. Once there is a ledger all
// members read its commands.
func (n *Node) understood(ctx context.Context, c rounds.Command) error {
	version := encoding.Version(c)
	if version == 1 || n.hasLedger() {
		return nil
	}
	servers := n.servers()
	old := make([]bool, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if s.ID == raft.ServerID(n.config.Name) {
			continue
		}
		wg.Go(func() {
			info, err := n.ask(ctx, string(s.Address), 0)
			old[i] = err == nil && max(info.GetCommandVersion(), 1) < version
		})
	}
	wg.Wait()
	if i := slices.Index(old, true); i >= 0 {
		return fmt.Errorf("%w: upgrade %s first", ErrOldMember, servers[i].ID)
	}
	return nil
}

// Barrier returns an index such that everything committed before the call is at
// or before it, and applied here.
func (n *Node) Barrier(ctx context.Context) (index uint64, err error) { return n.propose(ctx, nil) }

func (n *Node) propose(ctx context.Context, data []byte) (uint64, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = 5 * time.Millisecond
	wait.MaxInterval = 100 * time.Millisecond
	patience := time.NewTimer(max(electionPatience, 15*n.config.Heartbeat))
	defer patience.Stop()
	for {
		leader := n.epoch.current().Done()
		out, err := n.attempt(ctx, data)
		if err == nil {
			if out.refusal != nil {
				return out.index, out.refusal
			}
			return out.index, nil
		}
		if !errors.Is(err, ErrNoLeader) {
			return 0, err
		}
		retry := time.NewTimer(wait.NextBackOff())
		select {
		case <-retry.C:
		case <-leader: // a new one, or none
			retry.Stop()
		case <-ctx.Done():
			retry.Stop()
			return 0, ctx.Err()
		case <-n.stop:
			retry.Stop()
			return 0, ErrStopped
		case <-patience.C:
			retry.Stop()
			return 0, err
		}
	}
}

// attempt proposes once, here or at the leader.
func (n *Node) attempt(ctx context.Context, data []byte) (applied, error) {
	if err := n.usable(); err != nil {
		return applied{}, err
	}
	if err := ctx.Err(); err != nil {
		return applied{}, err
	}
	if n.raft.State() == raft.Leader {
		return n.apply(ctx, data)
	}
	epoch := n.epoch.current()
	leader, id := n.raft.LeaderWithID()
	if leader == "" || id == raft.ServerID(n.config.Name) {
		return applied{}, ErrNoLeader
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(epoch, cancel)()
	out, err := n.peers.propose(call, string(leader), data)
	if err != nil {
		return out, err
	}
	if err := n.replica.wait(ctx, n.stop, out.index); err != nil {
		return out, fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
	return out, nil
}

// apply proposes as the leader. Without data it is a barrier.
func (n *Node) apply(ctx context.Context, data []byte) (applied, error) {
	if len(data) == 0 {
		if err := n.Verify(ctx); err != nil {
			return applied{}, err
		}
		return applied{index: n.replica.last().index}, nil
	}
	f := n.raft.Apply(data, enqueueTimeout)
	switch err := n.await(ctx, f); {
	case err == nil:
		return f.Response().(applied), nil
	case notAppended(err):
		return applied{}, fmt.Errorf("%w: %w", ErrNoLeader, err)
	default:
		return applied{}, fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
}

// notAppended reports whether an error of raft's says that a command never came
// into the log.
func notAppended(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout)
}

// await waits for raft, ctx or the end of the node. raft's futures know no
// context, and those that it never came to take up when it stops are never
// answered.
func (n *Node) await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			select {
			case n.transferring <- struct{}{}:
			default: // watchTransfers looks already
			}
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stop:
		return ErrStopped
	}
}

// A leadership transfer takes an election's time at the most. One that still
// refuses everything after so many looks, five seconds, does so for ever.
const (
	transferLook  = 250 * time.Millisecond
	transferLooks = 20
)

// watchTransfers ends the node if it leads, and refuses everything for a transfer
// of leadership that is no more: raft forgets to take its mark away if an election
// comes between (hashicorp/raft issue 696), and only a restart does. Looks are
// counted, rather than time, as a process may have been stopped and woken.
func (n *Node) watchTransfers() {
	t := time.NewTicker(transferLook)
	defer t.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-n.transferring:
		}
		for looks := 0; errors.Is(n.await(context.Background(), n.raft.Barrier(enqueueTimeout)), raft.ErrLeadershipTransferInProgress); looks++ {
			if looks == transferLooks {
				n.fatal(errors.New("raft refuses every command for a leadership transfer that has ended (hashicorp/raft issue 696): restart this node"))
			}
			select {
			case <-n.stop:
				return
			case <-t.C:
			}
		}
	}
}

// Verify returns once this node is known to lead and to have applied everything
// that was committed before the call; ErrNoLeader if it does not lead.
//
// It commits a barrier. raft's VerifyLeader would cost no entry, but counts
// answers to heartbeats that were sent before it was asked: a leader that was
// stopped, and deposed, would find them in its sockets when it goes on.
func (n *Node) Verify(ctx context.Context) error {
	if err := n.usable(); err != nil {
		return err
	}
	if n.raft.State() != raft.Leader {
		return ErrNoLeader
	}
	err := n.await(ctx, n.raft.Barrier(enqueueTimeout))
	if err == nil || errors.Is(err, ErrStopped) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoLeader, err)
}

// StageBlob stages bytes in pieces that a log entry holds, for a command that
// refers to them by digest. Blobs up to InlineLimit need not be staged: it
// returns them inline.
func (n *Node) StageBlob(ctx context.Context, job string, round, attempt int, b []byte) (rounds.Blob, error) {
	blob := rounds.Blob{Digest: sha256.Sum256(b), Size: int64(len(b))}
	if len(b) <= InlineLimit {
		blob.Bytes = b
		return blob, nil
	}
	var pieces []rounds.Stage
	for offset := 0; offset < len(b); offset += pieceSize {
		pieces = append(pieces, rounds.Stage{
			Job: job, Round: round, Attempt: attempt, Digest: blob.Digest,
			Size: blob.Size, Offset: int64(offset), Piece: b[offset:min(offset+pieceSize, len(b))],
		})
	}
	if n.raft.State() == raft.Leader && n.stageAhead(ctx, pieces) == nil {
		return blob, nil
	}
	// One after the other, as the machine takes them in order; those that are
	// there already do no harm.
	for _, piece := range pieces {
		if err := n.stage(ctx, piece); err != nil {
			return blob, err
		}
	}
	return blob, nil
}

// piecesAhead is how many pieces the leader appends before the first of them is
// committed: enough to write one while another is on its way to the disk.
const piecesAhead = 4

// stageAhead stages pieces as the leader, without waiting for each: raft keeps
// their order. On an error any number of them may be there.
func (n *Node) stageAhead(ctx context.Context, pieces []rounds.Stage) error {
	var pending []raft.ApplyFuture
	first := func() error {
		f := pending[0]
		pending = pending[1:]
		if err := n.await(ctx, f); err != nil {
			return err
		}
		if refusal := f.Response().(applied).refusal; refusal != nil {
			return refusal
		}
		return nil
	}
	for _, piece := range pieces {
		data, err := encoding.MarshalCommand(piece)
		if err != nil {
			return err
		}
		if err := n.usable(); err != nil {
			return err
		}
		if len(pending) == piecesAhead {
			if err := first(); err != nil {
				return err
			}
		}
		pending = append(pending, n.raft.Apply(data, enqueueTimeout))
	}
	for len(pending) > 0 {
		if err := first(); err != nil {
			return err
		}
	}
	return nil
}

// stage proposes a piece until it is known to be there, which does no harm.
func (n *Node) stage(ctx context.Context, c rounds.Stage) error {
	const tries = 5
	for i := 1; ; i++ {
		_, err := n.Propose(ctx, c)
		if err == nil || !errors.Is(err, ErrIndeterminate) || i == tries || ctx.Err() != nil {
			return err
		}
	}
}
