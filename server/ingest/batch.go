package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/refusal"
	"github.com/undertone-fl/undertone/server/replication"
)

const (
	// maxMembers bounds a batch: its entry names them in 64 KiB.
	maxMembers = 4096
	// A sum that large takes many entries, whether it is of one contribution or
	// of twenty: it waits for the uploads that are under way, but no longer than
	// gatherTime. And it takes time to add up: while one is committed, another
	// one is. For small ones a second batch on its way only makes both smaller.
	largeSum     = 256 << 10
	gatherTime   = 250 * time.Millisecond
	largeRunners = 2
	// slowestLog is what a log is expected to take at least, in bytes a second.
	slowestLog = 4 << 20
)

// attempt is an open attempt with contributions that wait.
type attempt struct {
	Key
	terms terms

	// Of Ingest.mu.
	queue   []*contribution
	pending map[rounds.ClientID]*contribution // queued, or in a batch
	runners int
	// uploads that have begun, and are neither queued nor given up, one of each
	// client. late are clients that a batch has waited for in vain: none waits for
	// them again, or one client could delay every batch. gathered is closed when
	// no upload is awaited, if somebody waits for it.
	uploads  map[rounds.ClientID]*Upload
	late     map[rounds.ClientID]struct{}
	awaited  int
	gathered chan struct{}
}

// attempt returns an attempt, which is kept until it is idle. in.mu is held.
func (in *Ingest) attempt(key Key, t terms) *attempt {
	a := in.attempts[key]
	if a == nil {
		a = &attempt{Key: key, terms: t, pending: make(map[rounds.ClientID]*contribution),
			uploads: make(map[rounds.ClientID]*Upload), late: make(map[rounds.ClientID]struct{})}
		in.attempts[key] = a
	}
	return a
}

// forget lets an attempt go that has nothing under way. in.mu is held.
func (in *Ingest) forget(a *attempt) {
	if a.runners == 0 && len(a.uploads) == 0 {
		delete(in.attempts, a.Key)
	}
}

// expect announces an upload, and returns the client's before, to be given up;
// arrived ends it.
func (in *Ingest) expect(u *Upload) (before *Upload) {
	in.mu.Lock()
	defer in.mu.Unlock()
	a := in.attempt(u.header.Key, u.terms)
	u.attempt = a
	if before = a.uploads[u.header.Client]; before != nil && before.awaited {
		before.awaited = false
		a.awaited--
	}
	a.uploads[u.header.Client] = u
	if _, late := a.late[u.header.Client]; !late {
		u.awaited = true
		a.awaited++
	}
	return before
}

func (in *Ingest) arrived(u *Upload) {
	in.mu.Lock()
	defer in.mu.Unlock()
	a := u.attempt
	if a.uploads[u.header.Client] == u {
		delete(a.uploads, u.header.Client)
	}
	if u.awaited {
		u.awaited = false
		a.awaited--
	}
	a.gatheredAll()
	in.forget(a)
}

// gatheredAll wakes who waits for uploads if none is awaited. in.mu is held.
func (a *attempt) gatheredAll() {
	if a.awaited == 0 && a.gathered != nil {
		close(a.gathered)
		a.gathered = nil
	}
}

// gather waits a little for the uploads to an attempt that are under way.
func (in *Ingest) gather(a *attempt) {
	in.mu.Lock()
	if a.awaited == 0 || a.terms.size() < largeSum {
		in.mu.Unlock()
		return
	}
	if a.gathered == nil {
		a.gathered = make(chan struct{})
	}
	gathered := a.gathered
	in.mu.Unlock()
	late := time.NewTimer(gatherTime)
	defer late.Stop()
	select {
	case <-gathered:
	case <-late.C:
		in.mu.Lock()
		defer in.mu.Unlock()
		for client, u := range a.uploads {
			a.late[client] = struct{}{}
			u.awaited = false
		}
		a.awaited = 0
		a.gatheredAll()
	case <-in.ctx.Done():
	}
}

// waiting returns the client's contribution to an attempt that is on its way.
func (in *Ingest) waiting(key Key, client rounds.ClientID) *contribution {
	in.mu.Lock()
	defer in.mu.Unlock()
	if a := in.attempts[key]; a != nil {
		return a.pending[client]
	}
	return nil
}

// commit queues a contribution, and waits for its batch.
func (in *Ingest) commit(ctx context.Context, key Key, t terms, c *contribution) (Receipt, error) {
	queued, err := in.enqueue(key, t, c)
	if err != nil {
		return Receipt{}, err
	}
	return in.await(ctx, queued, queued != c)
}

// enqueue queues a contribution. It returns the one to wait for, which is the
// client's first if that is on its way.
func (in *Ingest) enqueue(key Key, t terms, c *contribution) (*contribution, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.draining {
		in.drop(c)
		return nil, replication.ErrStopped
	}
	a := in.attempt(key, t)
	if first := a.pending[c.client]; first != nil {
		in.drop(c)
		return first, nil
	}
	a.pending[c.client] = c
	a.queue = append(a.queue, c)
	if a.runners == 0 || a.runners < largeRunners && t.size() >= largeSum {
		a.runners++
		in.runners.Add(1)
		go in.run(a)
	}
	return c, nil
}

// await waits for a contribution's outcome. If ctx ends first the contribution
// stays in its batch: whoever sends it again finds it there, or in the sum.
func (in *Ingest) await(ctx context.Context, c *contribution, again bool) (Receipt, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
	r := c.receipt
	r.Duplicate = r.Duplicate || again
	if c.err == nil {
		if r.Duplicate {
			in.config.Metrics.Duplicate.Inc()
		} else {
			in.config.Metrics.Accepted.Inc()
		}
	}
	return r, c.err
}

// finish gives a contribution its outcome.
func (in *Ingest) finish(a *attempt, c *contribution, r Receipt, err error) {
	in.mu.Lock()
	delete(a.pending, c.client)
	in.drop(c)
	in.mu.Unlock()
	c.receipt, c.err = r, err
	close(c.done)
}

// batch is contributions that are committed together. Its storage is used again.
type batch struct {
	members []*contribution
	ids     []rounds.ClientID
	sum     []int64
	packed  []byte
}

// run commits an attempt's queue, batch by batch, until it is empty.
func (in *Ingest) run(a *attempt) {
	defer in.runners.Done()
	b := &batch{sum: make([]int64, a.terms.release.Length)}
	for {
		in.gather(a)
		in.mu.Lock()
		n := min(len(a.queue), maxMembers)
		if n == 0 {
			a.runners--
			in.forget(a)
			in.mu.Unlock()
			return
		}
		b.members = append(b.members[:0], a.queue[:n]...)
		a.queue = slices.Delete(a.queue, 0, n)
		in.mu.Unlock()
		in.commitBatch(a, b)
		clear(b.members)
	}
}

// commitBatch proposes a batch until every member has its outcome.
func (in *Ingest) commitBatch(a *attempt, b *batch) {
	ctx, span := in.config.Tracer.Start(in.ctx, "commit batch", trace.WithAttributes(
		attribute.String("job", a.Job), attribute.Int("round", a.Round), attribute.Int("attempt", a.Attempt),
		attribute.Int("members", len(b.members))))
	defer span.End()
	patience := in.config.Patience + time.Duration(a.terms.size()/slowestLog)*time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	in.config.Metrics.BatchMembers.Observe(float64(len(b.members)))

	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 10*time.Millisecond, 500*time.Millisecond
	added := false // b.sum is that of b.members
	for len(b.members) > 0 {
		if !added {
			b.add(a.terms)
			added = true
		}
		index, err := in.propose(ctx, a, b)
		if err == nil {
			for _, c := range b.members {
				in.finish(a, c, Receipt{Index: index}, nil)
			}
			in.config.Metrics.CommitSeconds.Observe(time.Since(start).Seconds())
			return
		}
		in.config.Metrics.Reproposed.Inc()
		before := len(b.members)
		if err := in.settle(ctx, a, b, err); err != nil {
			span.RecordError(err)
			for _, c := range b.members {
				in.finish(a, c, Receipt{}, err)
			}
			return
		}
		if added = len(b.members) == before; added { // the same again, in a moment
			select {
			case <-time.After(pause.NextBackOff()):
			case <-ctx.Done():
			}
		}
	}
}

// add adds the members up.
func (b *batch) add(t terms) {
	clear(b.sum)
	b.ids = b.ids[:0]
	for _, c := range b.members {
		b.ids = append(b.ids, c.client)
		err := c.each(t.width, func(at int, piece []byte) error {
			return aggregation.AddPacked(b.sum[at:at+len(piece)/t.width], piece, t.width, math.MaxUint64)
		})
		if err != nil {
			panic(fmt.Sprintf("ingest: a contribution that was checked: %v", err))
		}
	}
	b.packed = aggregation.Pack(b.packed[:0], b.sum, t.width)
}

func (in *Ingest) propose(ctx context.Context, a *attempt, b *batch) (uint64, error) {
	sum, err := in.node.StageBlob(ctx, a.Job, a.Round, a.Attempt, b.packed)
	if err != nil {
		return 0, err
	}
	return in.node.Propose(ctx, rounds.Collect{Job: a.Job, Round: a.Round, Attempt: a.Attempt, Members: b.ids, Sum: sum})
}

// settle takes the members that have an outcome off a batch that was not
// committed. What is left is to be proposed again, or fails with the error.
func (in *Ingest) settle(ctx context.Context, a *attempt, b *batch, err error) error {
	refused, ok := errors.AsType[*rounds.Refusal](err)
	if !ok {
		switch {
		case errors.Is(err, replication.ErrDiverged), errors.Is(err, replication.ErrStopped):
			return err
		case in.ctx.Err() != nil:
			return replication.ErrStopped
		case ctx.Err() != nil:
			return replication.ErrIndeterminate
		}
		// No leader, or an unknown outcome: the members' ids make the same
		// proposal harmless.
		if in.over(a) {
			return in.finishOver(a, b)
		}
		return nil
	}
	switch refused.Reason {
	case rounds.Counted:
		return in.finishCounted(a, b, refused.Counted)
	case rounds.Full:
		if refused.Room <= 0 || refused.Room >= len(b.members) {
			return in.finishOver(a, b)
		}
		// Others may be in before: the machine decides about the rest.
		in.mu.Lock()
		a.queue = slices.Insert(a.queue, 0, b.members[refused.Room:]...)
		in.mu.Unlock()
		b.members = b.members[:refused.Room]
		return nil
	case rounds.NotOpen, rounds.WrongRound, rounds.AlreadyReleased, rounds.UnknownJob:
		return in.finishOver(a, b)
	case rounds.NotStaged:
		return ctx.Err()
	}
	in.config.Logger.Error("a batch was refused", "job", a.Job, "round", a.Round, "attempt", a.Attempt, "err", err)
	return err
}

// finishCounted acknowledges the members that were in the sum already.
func (in *Ingest) finishCounted(a *attempt, b *batch, counted []int) error {
	index := in.index()
	for _, i := range counted {
		if i < 0 || i >= len(b.members) || b.members[i] == nil {
			return fmt.Errorf("ingest: the refusal names member %d of %d", i, len(b.members))
		}
		in.finish(a, b.members[i], Receipt{Index: index, Duplicate: true}, nil)
		b.members[i] = nil
	}
	if len(counted) == 0 {
		return errors.New("ingest: the refusal names nobody")
	}
	b.members = slices.DeleteFunc(b.members, func(c *contribution) bool { return c == nil })
	return nil
}

// over reports whether the attempt takes no more contributions.
func (in *Ingest) over(a *attempt) bool {
	over := true
	in.node.View(func(m *rounds.Machine, _ uint64) {
		if job, ok := m.Job(a.Job); ok && len(job.Attempts) > 0 {
			last := &job.Attempts[len(job.Attempts)-1]
			over = !matches(last, a.Key) || last.Phase != rounds.Collecting
		}
	})
	return over
}

// finishOver ends the members of a batch whose attempt has ended. A proposal
// whose outcome was unknown may have brought them in before.
func (in *Ingest) finishOver(a *attempt, b *batch) error {
	for _, c := range b.members {
		var (
			r   Receipt
			err error
		)
		in.node.View(func(m *rounds.Machine, index uint64) {
			counted, _ := m.Member(a.Job, a.Round, a.Attempt, c.client)
			if counted {
				r = Receipt{Index: index, Duplicate: true}
				return
			}
			if job, ok := m.Job(a.Job); ok {
				err = notOpen(m, &job, a.Key, c.client)
			} else {
				err = refusal.New(undertonev1.Reason_REASON_UNKNOWN_JOB, "no job %.64q", a.Job)
			}
		})
		in.finish(a, c, r, err)
	}
	b.members = b.members[:0]
	return nil
}

func (in *Ingest) index() (index uint64) {
	in.node.View(func(_ *rounds.Machine, i uint64) { index = i })
	return index
}
