// Package board shows what is going on: every job as it stands, worked out once
// per change and shared by all who wait for one.
//
// The replicated state changes with every batch of contributions, thousands of
// times a second; what anybody waits for - a round that opens, closes, is
// released - changes once in a while. The board tells the two apart, so that ten
// thousand waiting clients cost nothing while a round collects.
package board

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Node is what a board reads.
type Node interface {
	View(func(m *rounds.Machine, index uint64))
	Changed() <-chan struct{}
	Leading() (bool, uint64)
	NotReady() []string
}

// Job is a job but for what changes while a round collects.
type Job struct {
	Name       string
	Spec       *rounds.Spec
	SpecDigest rounds.Digest
	State      rounds.JobState
	Until      int
	Released   int
	Latest     rounds.Digest
	LatestSize int64
	Spent      accounting.NanoRho
	// Last is the last attempt that was opened; its Round is 0 if none was. Its
	// Members are not kept up to date.
	Last rounds.Attempt
	// Next is the number of the attempt that comes next.
	Next int
	// Since is when this node first saw Last in its phase, or began to lead if
	// that was later: the durations a leader measures begin there, on its own
	// monotonic clock, and no clock is compared with another's.
	Since time.Time
}

// Collecting reports whether a round is open.
func (j *Job) Collecting() bool { return j.Last.Phase == rounds.Collecting }

// Remaining is how long the open round still collects, at least a millisecond.
func (j *Job) Remaining(now time.Time) time.Duration {
	return max(j.Deadline()-now.Sub(j.Since), time.Millisecond)
}

// Deadline is how long a round collects at most.
func (j *Job) Deadline() time.Duration { return time.Duration(j.Spec.Deadline) * time.Millisecond }

// Edition is the board between two changes. It never changes itself.
type Edition struct {
	Jobs     []Job // by name
	Leading  bool
	Term     uint64
	NotReady []string
	// Next is closed when there is a newer edition.
	Next <-chan struct{}

	next chan struct{}
}

// Job returns the job of that name, nil if there is none.
func (e *Edition) Job(name string) *Job {
	i, ok := slices.BinarySearchFunc(e.Jobs, name, func(j Job, name string) int {
		switch {
		case j.Name < name:
			return -1
		case j.Name > name:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &e.Jobs[i]
}

// Board keeps the current edition.
type Board struct {
	node Node

	mu      sync.Mutex
	edition *Edition
	asOf    uint64
}

// New returns the board of a node. Run keeps it up to date.
func New(n Node) *Board {
	b := &Board{node: n}
	b.edition = &Edition{next: make(chan struct{})}
	b.edition.Next = b.edition.next
	b.refresh()
	return b
}

const (
	// leastPause between two readings; a round that opens is seen so much later.
	leastPause = time.Millisecond
	// readiness is looked at anew this often: its changes are not announced.
	readinessPause = 250 * time.Millisecond
)

// Run follows the node until ctx is done. Reading takes at most a tenth of the
// time of one core, however many jobs there are and however fast they change.
func (b *Board) Run(ctx context.Context) {
	for {
		changed := b.node.Changed()
		start := time.Now()
		b.mu.Lock()
		b.refresh()
		b.mu.Unlock()
		pause := max(leastPause, 10*time.Since(start))

		ready := time.NewTimer(readinessPause)
		select {
		case <-ctx.Done():
			ready.Stop()
			return
		case <-changed:
		case <-ready.C:
		}
		ready.Stop()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// At returns the edition of a state at least as new as index, which the node
// must have applied, and the index of the state it is known to be true of.
func (b *Board) At(index uint64) (*Edition, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asOf < index {
		b.refresh()
	}
	return b.edition, b.asOf
}

// refresh reads the state, and replaces the edition if it differs.
func (b *Board) refresh() {
	old := b.edition
	notReady := b.node.NotReady()
	leading, term := b.node.Leading()
	now := time.Now()
	tookLead := leading && (!old.Leading || old.Term != term)

	var jobs []Job
	same := true
	b.node.View(func(m *rounds.Machine, index uint64) {
		b.asOf = index
		names := m.Jobs()
		jobs = make([]Job, 0, len(names))
		same = len(names) == len(old.Jobs)
		for _, name := range names {
			v, _ := m.Job(name)
			before := old.Job(name)
			if before != nil && !tookLead && unchanged(before, &v) {
				jobs = append(jobs, *before)
				continue
			}
			same = false
			j := Job{
				Name:       name,
				Spec:       v.Spec,
				SpecDigest: v.Raw.Digest,
				State:      v.State,
				Until:      v.Until,
				Released:   v.Released,
				Latest:     v.Latest.Digest,
				LatestSize: v.Latest.Size,
				Spent:      v.Spent,
				Last:       last(&v),
				Next:       v.Next,
				Since:      now,
			}
			if before != nil && !tookLead && sameAttempt(before.Last, j.Last) {
				j.Since = before.Since
			}
			jobs = append(jobs, j)
		}
	})
	if same && old.Leading == leading && old.Term == term && slices.Equal(old.NotReady, notReady) {
		return
	}
	next := make(chan struct{})
	b.edition = &Edition{Jobs: jobs, Leading: leading, Term: term, NotReady: notReady, Next: next, next: next}
	close(old.next)
}

func unchanged(j *Job, v *rounds.JobView) bool {
	return j.State == v.State && j.Until == v.Until && j.Released == v.Released &&
		j.Spent == v.Spent && j.Spec == v.Spec && sameAttempt(j.Last, last(v))
}

func sameAttempt(a, b rounds.Attempt) bool {
	return a.Round == b.Round && a.Attempt == b.Attempt && a.Phase == b.Phase
}

func last(v *rounds.JobView) rounds.Attempt {
	if len(v.Attempts) == 0 {
		return rounds.Attempt{}
	}
	return v.Attempts[len(v.Attempts)-1]
}
