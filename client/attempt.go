package client

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// take takes part in an attempt that is open.
func (s *syncing) take(w *undertonev1.Work, j *JobSummary) error {
	if !counts(w.GetRound()) || !counts(w.GetAttempt()) || len(w.GetSpecDigest()) != len(digest{}) || len(w.GetStateDigest()) != len(digest{}) {
		return fmt.Errorf("%w: a malformed offer of work", ErrDigest)
	}
	k := attemptKey{w.GetJob(), int(w.GetRound()), int(w.GetAttempt())}
	j.Round, j.Attempt, j.Outcome, j.Earlier = k.round, k.attempt, "", false
	if p, ok := s.passed[k.job]; ok && p.attemptKey == k {
		return p.why
	}
	err := s.takePart(k, w, j)
	if final(err) {
		s.passed[k.job] = passed{k, err}
	}
	return err
}

// counts reports whether n counts rounds or attempts, as an int of any machine.
func counts(n uint32) bool { return n >= 1 && n <= math.MaxInt32 }

func (s *syncing) takePart(k attemptKey, w *undertonev1.Work, j *JobSummary) error {
	spec, err := s.spec(k.job, digest(w.GetSpecDigest()))
	if err != nil {
		return err
	}
	if k.round > len(spec.Releases) {
		return fmt.Errorf("%w: round %d of %d", ErrDigest, k.round, len(spec.Releases))
	}
	if err := s.reserved(k, w, spec); err != nil {
		return err
	}
	r, next, err := s.state(spec, k.round-1, digest(w.GetStateDigest()), w.GetStateSize())
	if err != nil {
		return err
	}
	disclosed := next.Jobs[k.job].attempt(k.round, k.attempt)
	elsewhere := false
	switch {
	case disclosed != nil && disclosed.Outcome != "":
		j.Outcome, j.Earlier = disclosed.Outcome, true
		return also(s.keep(next), s.fit(r, j))
	case disclosed == nil:
		elsewhere = w.GetCounted()
		if err := s.charge(k, r, next, elsewhere, j); err != nil {
			return err
		}
	case w.GetCounted() && !s.outbox.has(k):
		elsewhere = true
		if err := s.settle(k, Elsewhere, 0, j); err != nil {
			return err
		}
	}
	if elsewhere {
		return also(ErrElsewhere, s.fit(r, j))
	}
	if !s.outbox.has(k) {
		if err := s.contribute(k, r, j); err != nil {
			return err
		}
	}
	return also(s.deliver(k, j), s.fit(r, j))
}

// reserved fails with ErrReservation or ErrBudget unless the ledger, as it was last
// witnessed, has the charge of an attempt.
func (s *syncing) reserved(k attemptKey, w *undertonev1.Work, spec *jobSpec) error {
	known := s.record.Load()
	own := spec.Releases[k.round-1].Charge
	if job := known.Jobs[k.job]; job != nil {
		spent, err := job.spent()
		if err != nil {
			return err
		}
		if known.attempt(k) != nil {
			own = spent
		} else if own, err = spent.Add(own); err != nil {
			return err
		}
	}
	return known.Ledger.reserves(w, spec, own)
}

// spec returns a job's specification, once its claims hold and it is accepted.
func (s *syncing) spec(job string, d digest) (*jobSpec, error) {
	if known := s.record.Load().Jobs[job]; known != nil {
		if err := s.compare(job, d, known.Released, known.State); err != nil {
			return nil, err
		}
	}
	spec, err := s.library.spec(d, func() ([]byte, error) { return s.servers.spec(s.ctx, job) })
	if err != nil {
		return nil, err
	}
	if spec.Job != job {
		return nil, fmt.Errorf("%w: it is that of the job %s", ErrSpec, spec.Job)
	}
	if err := s.trusts(spec); err != nil {
		return nil, err
	}
	if err := s.cfg.Accept(spec.Spec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDeclined, err)
	}
	return spec, nil
}

// trusts fails with ErrDeclined where a job's trust mode is none of the device's.
func (s *syncing) trusts(spec *jobSpec) error {
	if slices.Contains(s.cfg.Trust, spec.Trust) {
		return nil
	}
	return fmt.Errorf("%w: its trust mode is %s, and this device accepts %v", ErrDeclined, spec.Trust, s.cfg.Trust)
}

// compare holds what a server shows of a job on record against what was shown
// before. Fails with ErrTwoHistories, once it did for ever, or ErrBackwards.
func (s *syncing) compare(job string, spec digest, version int, state digest) error {
	known := s.record.Load().Jobs[job]
	conflict := known.Conflict
	if conflict == "" {
		if conflict = known.conflict(spec, version, state); conflict != "" {
			next := s.record.Load().clone()
			next.job(job).Conflict = conflict
			if err := s.save(next); err != nil {
				return err
			}
		}
	}
	if conflict != "" {
		return fmt.Errorf("%w: %s", ErrTwoHistories, conflict)
	}
	if version < known.Released {
		return fmt.Errorf("%w: model %d, after model %d", ErrBackwards, version, known.Released)
	}
	return nil
}

// state returns a job's released state, and the record with it, to be kept.
func (s *syncing) state(spec *jobSpec, version int, d digest, size uint64) (*release, *record, error) {
	next := s.record.Load().clone()
	if next.Jobs[spec.Job] == nil {
		next.Jobs[spec.Job] = &jobRecord{Spec: spec.digest, Delta: spec.Delta, Rounds: len(spec.Releases), Released: version, State: d}
	} else if err := s.compare(spec.Job, spec.digest, version, d); err != nil {
		return nil, nil, err
	} else {
		j := next.job(spec.Job)
		j.Released, j.State = version, d
	}
	r, err := s.library.state(spec, version, d, func() ([]byte, error) {
		return s.servers.state(s.ctx, spec.Job, version, d, size, s.index)
	})
	return r, next, err
}

// keep saves a record that state returned, if it says more of a job than before.
func (s *syncing) keep(next *record) error {
	now := s.record.Load()
	for name, j := range next.Jobs {
		if before := now.Jobs[name]; before == nil || before.Released != j.Released {
			return s.save(next)
		}
	}
	return nil
}

// charge puts an attempt on the record, before anything is drawn or sent for it.
// Fails with ErrBudget or ErrCap. A contribution that is counted already, of this
// identity but not of this folder, was made whatever the cap says; that it was is
// the server's word alone, so the job's budget bounds it all the same.
func (s *syncing) charge(k attemptKey, r *release, next *record, elsewhere bool, j *JobSummary) error {
	job := next.job(k.job)
	if n := len(job.Attempts); n > 0 && !job.Attempts[n-1].before(k.round, k.attempt) {
		return fmt.Errorf("%w: %v, after attempt %d of round %d", ErrBackwards, k, job.Attempts[n-1].Attempt, job.Attempts[n-1].Round)
	}
	entry := disclosure{Round: k.round, Attempt: k.attempt, State: r.digest, Charge: r.spec.Releases[k.round-1].Charge, Reserved: next.Ledger.size()}
	ofJob, err := job.spent()
	if err != nil {
		return err
	}
	spent, err := next.spent()
	if err != nil {
		return err
	}
	allowed := s.budget
	if elsewhere {
		entry.Outcome = Elsewhere
		allowed = math.MaxUint64 // all that the record can sum up
	}
	var refused error
	switch {
	case !fits(r.spec.Budget, ofJob, entry.Charge):
		refused = fmt.Errorf("%w of %v: %v are spent, and %v asks for %v", ErrBudget, r.spec.Budget, ofJob, k, entry.Charge)
	case !fits(allowed, spent, entry.Charge):
		refused = fmt.Errorf("%w of %v: %v are spent, and %v asks for %v", ErrCap, s.budget, spent, k, entry.Charge)
	}
	if refused != nil {
		return also(refused, s.keep(next))
	}
	job.Attempts = append(job.Attempts, entry)
	if err := s.save(next); err != nil {
		return err
	}
	j.Outcome, j.Charge = entry.Outcome, entry.Charge
	return nil
}

// fits reports whether a budget of which so much is spent has room for a charge.
func fits(budget, spent, charge accounting.NanoRho) bool {
	filter := accounting.Filter{Budget: budget}
	return filter.Reserve(spent) == nil && filter.Reserve(charge) == nil
}

// contribute stores the noised contribution to a charged attempt.
func (s *syncing) contribute(k attemptKey, r *release, j *JobSummary) error {
	vector := make([]float64, r.spec.Releases[k.round-1].Length)
	j.Samples = s.fill(vector, r)

	var source noise.Source
	if s.cfg.Seeded != nil {
		source = s.cfg.Seeded(k.job, k.round, k.attempt)
	} else {
		source = noise.NewSecret()
	}
	mechanism, err := r.over(source)
	if err != nil {
		return err
	}
	noised := make([]int64, len(vector))
	if err := mechanism.Encode(noised, vector); err != nil {
		return err
	}
	payload := aggregation.Pack(nil, noised, int(r.spec.Lattice.ModulusBits/8))
	return s.outbox.put(k, newUpdate(k, r.digest, payload))
}

// fill stores the contribution in vector: zeros where there is an error.
func (s *syncing) fill(vector []float64, r *release) error {
	data, err := s.cfg.Samples(r.spec.Job, r.Config.Dim)
	if err != nil {
		return err
	}
	r.spec.equip(&s.contributor.Solver)
	return s.contributor.Contribute(vector, r.State, data)
}

func (spec *jobSpec) equip(solver *local.Solver) {
	solver.Sparsity, solver.HardThreshold = spec.Sparsity, spec.HardThreshold
}

// deliver sends a stored contribution until it is settled. Fails with the error
// that leaves it open, or says why it was not counted.
func (s *syncing) deliver(k attemptKey, j *JobSummary) error {
	known := s.record.Load()
	charged := known.attempt(k)
	if charged == nil {
		// The record comes first, so nobody sent this. Nobody will.
		return also(fmt.Errorf("%s: %w: it is of no attempt on the record", s.outbox.path(k), ErrCorrupt), s.outbox.remove(k))
	}
	if charged.Outcome != "" {
		j.Outcome, j.Earlier = charged.Outcome, true
		return s.outbox.remove(k)
	}
	// What waits may be from before the user narrowed Config.Trust: it stays.
	if spec, err := s.library.spec(known.Jobs[k.job].Spec, nil); err == nil {
		if err := s.trusts(spec); err != nil {
			return err
		}
	}
	update, err := s.outbox.get(k)
	if errors.Is(err, ErrCorrupt) {
		return also(err, s.settle(k, Lost, 0, j))
	}
	if err != nil {
		return err
	}
	index, err := s.servers.submit(s.ctx, update, s.index)
	var refused *RefusedError
	switch {
	case err == nil:
		return s.settle(k, Contributed, index, j)
	case !errors.As(err, &refused):
		return err
	case refused.Reason == undertonev1.Reason_REASON_COUNTED || refused.Counted != nil && *refused.Counted:
		return s.settle(k, Contributed, 0, j)
	case errors.Is(err, ErrOver):
		return also(err, s.settle(k, Over, 0, j))
	case errors.Is(err, ErrRejected) || errors.Is(err, ErrUnknownJob):
		return also(err, s.settle(k, Rejected, 0, j))
	}
	return err
}

// settle puts an attempt's outcome on the record, and lets the contribution go.
func (s *syncing) settle(k attemptKey, o Outcome, index uint64, j *JobSummary) error {
	s.index = max(s.index, index)
	next := s.record.Load().clone()
	next.job(k.job).attempt(k.round, k.attempt).Outcome = o
	if err := s.save(next); err != nil {
		return err
	}
	j.Outcome = o
	return s.outbox.remove(k)
}
