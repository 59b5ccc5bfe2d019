package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// Sync checks that the servers' ledger extends what was seen of it, sends what waits to
// be sent, takes part in what is open, brings the personal models up to date, and
// returns what it did. What goes wrong with one job is in its JobSummary.
//
// Fails with ErrUnavailable, ErrForbidden, ErrRejected, ErrLedger, ErrOtherLedger, a
// *ForkError, the error of ctx, ErrClosed, or that of a file which cannot be written. The
// Summary is of what was done until then. To Sync again is safe, whatever happened.
func (d *Device) Sync(ctx context.Context) (*Summary, error) { return d.sync(ctx, 0) }

// Run keeps syncing until ctx is done, and returns nil then. It waits at the
// servers for rounds to open, and longer and longer after failures. It returns
// early for what does not pass by itself: see ForGood.
func (d *Device) Run(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.RandomizationFactor = time.Second, time.Minute, 0.5
	wait, last := time.Duration(0), firstLook
	for {
		s, err := d.sync(ctx, wait)
		if ctx.Err() != nil {
			return nil
		}
		d.cfg.Report(s)
		if ForGood(err) {
			return err
		}
		// No work announces a job's last release: it is looked for, less and less
		// often.
		if wait = d.cfg.Wait; d.awaitsLast() {
			wait = min(wait, last)
			last *= 2
		} else {
			last = firstLook
		}
		if err == nil && !slices.ContainsFunc(s.Jobs, JobSummary.open) {
			pauses.Reset()
			continue
		}
		pause := pauses.NextBackOff()
		if err != nil {
			d.log.Warn("sync failed", "error", err, "pause", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// firstLook is how long after its contribution to the last round a device looks for
// what came of it.
const firstLook = time.Second

// awaitsLast reports whether this device contributed to a job's last round, and has
// not seen its release.
func (d *Device) awaitsLast() bool {
	for name, j := range d.record.Load().Jobs {
		if n := len(j.Attempts); d.wanted(name) && n > 0 && j.Released < j.Rounds && j.Attempts[n-1].Round == j.Rounds && j.Attempts[n-1].Outcome == Contributed {
			return true
		}
	}
	return false
}

// syncing is one Sync.
type syncing struct {
	*Device
	ctx  context.Context
	jobs map[string]*JobSummary
}

func (d *Device) sync(ctx context.Context, wait time.Duration) (*Summary, error) {
	if d.cfg.Offline {
		return new(Summary), ErrClosed
	}
	s, end := d.begin(ctx)
	defer end()
	err := s.run(wait)
	return s.summary(), err
}

// begin takes the turn, until end.
func (d *Device) begin(ctx context.Context) (s *syncing, end func()) {
	d.turn.Lock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.open, func() { cancel(context.Cause(d.open)) })
	return &syncing{d, ctx, map[string]*JobSummary{}}, func() {
		stop()
		cancel(nil)
		d.turn.Unlock()
	}
}

// run fails where going on makes no sense.
func (s *syncing) run(wait time.Duration) error {
	if err := s.rejoin(); err != nil {
		return err
	}
	pending, err := s.outbox.pending()
	if err != nil {
		return err
	}
	if len(pending) > 0 {
		// What an earlier Sync, or life, renamed and could not sync may not be
		// durable: if it were sent and then lost, a second one could be made.
		if err := s.files.syncFolder(s.outbox.folder); err != nil {
			return err
		}
		wait = 0
	}
	answer, err := s.look(wait)
	if err != nil {
		return err
	}
	offered := map[attemptKey]bool{}
	for _, w := range answer.GetWork() {
		offered[attemptKey{w.GetJob(), int(w.GetRound()), int(w.GetAttempt())}] = true
	}
	for _, k := range pending {
		a := s.record.Load().attempt(k)
		if offered[k] && a != nil && a.Outcome == "" {
			continue // take delivers it, once its reservation is seen
		}
		j := s.job(k.job)
		j.Round, j.Attempt = k.round, k.attempt
		if a != nil && a.Outcome == "" && a.Reserved == 0 {
			j.Err = also(fmt.Errorf("%w: %v ended before it was shown", ErrReservation, k), s.settle(k, Over, 0, j))
		} else {
			j.Err = s.deliver(k, j)
		}
		switch {
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case errors.Is(j.Err, ErrUnavailable):
			return j.Err // nobody would answer anything else
		}
	}
	open := map[string]bool{}
	for _, w := range answer.GetWork() {
		k := attemptKey{w.GetJob(), int(w.GetRound()), int(w.GetAttempt())}
		if !s.wanted(k.job) && !slices.Contains(pending, k) {
			continue
		}
		open[w.GetJob()] = true
		j := s.job(w.GetJob())
		if j.Err = s.take(w, j); s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
	names := slices.Clone(s.cfg.Jobs)
	for name := range s.record.Load().Jobs {
		if s.wanted(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if open[name] || s.upToDate(name) {
			continue
		}
		j := s.job(name)
		if err := s.refresh(name, j); err != nil && j.Err == nil {
			j.Err = err
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
	if r := s.record.Load(); r.Index < s.index {
		return s.save(r.clone())
	}
	return nil
}

// look asks what is open. The answer's ledger extends what was witnessed, and is what is
// witnessed from then on, durably: nothing is sent before.
func (s *syncing) look(wait time.Duration) (*undertonev1.PollResponse, error) {
	before := s.record.Load()
	witnessed, seen := before.follows(s.cfg.LedgerKey), before.Ledger
	answer, err := s.servers.poll(s.ctx, &undertonev1.PollRequest{
		MinIndex: s.index, WaitMs: uint64(wait.Milliseconds()), Known: s.known(), LedgerSize: uint64(witnessed.size()),
	}, func(out *undertonev1.PollResponse, from string) error {
		next, err := witnessed.follow(out.GetLedger(), s.cfg.LedgerKey, from)
		if next != nil {
			seen = next
		}
		return err
	})
	if err == nil {
		s.index = max(s.index, answer.GetIndex())
	}
	if seen != before.Ledger {
		err = also(err, s.save(before.witness(seen)))
	}
	return answer, err
}

func (d *Device) wanted(job string) bool {
	return len(d.cfg.Jobs) == 0 || slices.Contains(d.cfg.Jobs, job)
}

// mostKnown is how many attempts a server takes in one poll.
const mostKnown = 4096

// known is what need not be shown again: of each job that is not released to its
// end the latest attempt that is settled, and the latest that was passed over.
func (d *Device) known() []*undertonev1.Participation {
	var out []*undertonev1.Participation
	add := func(k attemptKey) {
		if len(out) == mostKnown {
			return
		}
		out = append(out, &undertonev1.Participation{Job: k.job, Round: uint32(k.round), Attempt: uint32(k.attempt)})
	}
	for name, j := range d.record.Load().Jobs {
		if n := len(j.Attempts); n > 0 && j.Attempts[n-1].Outcome != "" && j.Released < j.Rounds {
			add(attemptKey{name, j.Attempts[n-1].Round, j.Attempts[n-1].Attempt})
		}
	}
	for _, p := range d.passed {
		add(p.attemptKey)
	}
	return out
}

// also is one line for two errors, of which either may be nil.
func also(err, more error) error {
	switch {
	case err == nil:
		return more
	case more == nil:
		return err
	}
	return fmt.Errorf("%w; and %w", err, more)
}
