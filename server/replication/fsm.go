package replication

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

// remembered is how many of the latest running hashes a node can compare. At
// ten thousand entries a second it is most of a second, as often as nodes ask.
const remembered = 8192

// replica is the state machine as the log drives it, with a hash that runs
// through everything that was applied:
//
//	hash(i) = SHA-256(hash(i-1) | i | length of command | command | effect)
//
// where a refusal has an effect too. Two nodes with the same hash at an index
// applied the same commands with the same effects.
type replica struct {
	fatal func(error)

	mu      sync.Mutex
	machine *rounds.Machine
	index   uint64 // of the last command applied
	hash    rounds.Digest
	recent  []point // the latest hashes, a ring
	oldest  int     // in recent, once it is full
	changed chan struct{}
	sum     hash.Hash

	installed atomic.Uint64 // snapshots of the leader's

	// corrupt, if set by a test, changes the effect of a command.
	corrupt func(index uint64, effect *rounds.Digest)
}

type point struct {
	index uint64
	hash  rounds.Digest
}

// applied is what a command came to: where, and whether it was refused.
type applied struct {
	index   uint64
	refusal *rounds.Refusal
}

var _ raft.BatchingFSM = (*replica)(nil)

func newReplica(fatal func(error)) *replica {
	return &replica{fatal: fatal, machine: rounds.NewMachine(), sum: sha256.New()}
}

// Apply applies one entry.
func (r *replica) Apply(l *raft.Log) any { return r.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries, and returns an applied for each command.
func (r *replica) ApplyBatch(entries []*raft.Log) []any {
	out := make([]any, len(entries))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, l := range entries {
		if l.Type != raft.LogCommand {
			continue // a membership: raft's own
		}
		refusal, err := r.apply(l.Index, l.Data)
		if err != nil {
			r.fatal(fmt.Errorf("log entry %d: %w", l.Index, err))
		}
		out[i] = applied{l.Index, refusal}
	}
	r.wake()
	return out
}

func (r *replica) apply(index uint64, data []byte) (*rounds.Refusal, error) {
	c, err := encoding.UnmarshalCommand(data)
	if err != nil {
		return nil, err
	}
	effect, err := r.machine.Apply(c)
	var refusal *rounds.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return nil, err
	}
	if r.corrupt != nil {
		r.corrupt(index, &effect)
	}
	var n [16]byte
	binary.BigEndian.PutUint64(n[:], index)
	binary.BigEndian.PutUint64(n[8:], uint64(len(data)))
	r.sum.Reset()
	r.sum.Write(r.hash[:])
	r.sum.Write(n[:])
	r.sum.Write(data)
	r.sum.Write(effect[:])
	r.sum.Sum(r.hash[:0])
	r.index = index
	r.remember(point{index, r.hash})
	return refusal, nil
}

func (r *replica) remember(p point) {
	if len(r.recent) < remembered {
		r.recent = append(r.recent, p)
		return
	}
	r.recent[r.oldest] = p
	r.oldest = (r.oldest + 1) % remembered
}

// at returns the index and hash of the last command applied, and the hash at
// another index, false if that is not known here (any more, or yet).
func (r *replica) at(index uint64) (last point, then rounds.Digest, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last = point{r.index, r.hash}
	n := len(r.recent)
	i := sort.Search(n, func(i int) bool { return r.recent[(r.oldest+i)%n].index >= index })
	if i == n || r.recent[(r.oldest+i)%n].index != index {
		return last, then, false
	}
	return last, r.recent[(r.oldest+i)%n].hash, true
}

func (r *replica) last() point {
	r.mu.Lock()
	defer r.mu.Unlock()
	return point{r.index, r.hash}
}

// wake tells those who wait that something changed.
func (r *replica) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// change returns a channel that is closed at the next change.
func (r *replica) change() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *replica) view(f func(m *rounds.Machine, index uint64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.machine, r.index)
}

// wait returns once index is applied, or ctx or stop is done.
func (r *replica) wait(ctx context.Context, stop <-chan struct{}, index uint64) error {
	for {
		changed := r.change()
		r.mu.Lock()
		done := r.index >= index
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return ErrStopped
		}
	}
}

// state copies the state, for a snapshot.
func (r *replica) state() *encoding.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &encoding.State{Index: r.index, Hash: r.hash, Snapshot: r.machine.Snapshot()}
}

// Snapshot copies the state; it is written while commands go on.
func (r *replica) Snapshot() (raft.FSMSnapshot, error) { return stateSnapshot{r.state()}, nil }

type stateSnapshot struct{ state *encoding.State }

func (s stateSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := encoding.WriteSnapshot(sink, s.state); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s stateSnapshot) Release() {}

// Restore replaces the state by a snapshot's. One that cannot be read is fatal,
// and leaves the state as it was.
func (r *replica) Restore(in io.ReadCloser) error {
	err := r.load(in)
	if err != nil {
		r.fatal(err)
	}
	r.installed.Add(1)
	return err
}

func (r *replica) load(in io.Reader) error {
	s, err := encoding.ReadSnapshot(in)
	if err != nil {
		return err
	}
	m, err := rounds.Restore(s.Snapshot)
	if err != nil {
		return fmt.Errorf("snapshot at entry %d: %w", s.Index, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.machine, r.index, r.hash = m, s.Index, s.Hash
	r.recent, r.oldest = append(r.recent[:0], point{s.Index, s.Hash}), 0
	r.wake()
	return nil
}
