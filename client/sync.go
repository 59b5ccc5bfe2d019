package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// Outcome is how an attempt ended for this device.
type Outcome string

// Outcomes. All but the first say that the attempt was charged for nothing.
const (
	Contributed Outcome = "contributed" // a server acknowledged it: it is in the sum
	Over        Outcome = "over"        // the attempt ended without it
	Rejected    Outcome = "rejected"    // no server takes it
	Lost        Outcome = "lost"        // it was damaged on disk, and is not made twice
	Elsewhere   Outcome = "elsewhere"   // the sum has another one under this identity
)

func (o Outcome) known() bool {
	switch o {
	case "", Contributed, Over, Rejected, Lost, Elsewhere:
		return true
	}
	return false
}

// Summary is what a Sync did.
type Summary struct {
	Jobs []JobSummary `json:"jobs"` // in order of their names
	// Finished says that every job is released to its last round, and the
	// personal models are those of it; false while no job is known.
	Finished bool `json:"finished"`
}

// JobSummary is what a Sync did for one job.
type JobSummary struct {
	Job string
	// Round and Attempt that it took part in, or would not; 0 if none was open.
	Round, Attempt int
	// Outcome is empty while it is open: the contribution waits to be sent, or
	// Err is why there is none.
	Outcome Outcome
	Earlier bool               // the outcome is an earlier Sync's
	Charge  accounting.NanoRho // that this Sync put on the record
	// Model is the version of the personal model, -1 without one; Updated if this
	// Sync fitted it.
	Model   int
	Updated bool
	// Err is what kept it from taking part, or from hearing of it.
	Err error
	// Samples is what is wrong with the user's samples. It stays on the device.
	Samples error
}

// MarshalJSON gives errors as text.
func (s JobSummary) MarshalJSON() ([]byte, error) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	return json.Marshal(struct {
		Job     string             `json:"job"`
		Round   int                `json:"round,omitempty"`
		Attempt int                `json:"attempt,omitempty"`
		Outcome Outcome            `json:"outcome,omitempty"`
		Earlier bool               `json:"earlier,omitempty"`
		Charge  accounting.NanoRho `json:"nano_rho,string,omitempty"`
		Model   int                `json:"model"`
		Updated bool               `json:"updated,omitempty"`
		Err     string             `json:"error,omitempty"`
		Samples string             `json:"samples_error,omitempty"`
	}{s.Job, s.Round, s.Attempt, s.Outcome, s.Earlier, s.Charge, s.Model, s.Updated, text(s.Err), text(s.Samples)})
}

// Sync sends what waits to be sent, takes part in what is open, brings the
// personal models up to date, and returns what it did. What goes wrong with one
// job is in its JobSummary.
//
// Fails with ErrUnavailable, ErrForbidden, ErrRejected, the error of ctx,
// ErrClosed, or that of a file which cannot be written. The Summary is of what was
// done until then. To Sync again is safe, whatever happened.
func (d *Device) Sync(ctx context.Context) (*Summary, error) { return d.sync(ctx, 0) }

// Run keeps syncing until ctx is done, and returns nil then. It waits at the
// servers for rounds to open, and longer and longer after failures. It returns
// early for what will not pass: ErrForbidden, ErrClosed.
func (d *Device) Run(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.RandomizationFactor = time.Second, time.Minute, 0.5
	for wait := time.Duration(0); ; wait = d.cfg.Wait {
		s, err := d.sync(ctx, wait)
		if ctx.Err() != nil {
			return nil
		}
		d.cfg.Report(s)
		if errors.Is(err, ErrForbidden) || errors.Is(err, ErrClosed) {
			return err
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

// open reports whether there is something left to try.
func (s JobSummary) open() bool {
	return s.Err != nil && s.Outcome == "" && !final(s.Err)
}

// final reports whether an error holds of an attempt for as long as it is open.
func final(err error) bool {
	for _, f := range []error{ErrCap, ErrSpec, ErrDeclined, ErrTwoHistories, ErrBackwards, ErrUnknownJob} {
		if errors.Is(err, f) {
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
	d.turn.Lock()
	defer d.turn.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.open, func() { cancel(context.Cause(d.open)) })()

	s := &syncing{d, ctx, map[string]*JobSummary{}}
	err := s.run(wait)
	return s.summary(), err
}

// run fails where going on makes no sense.
func (s *syncing) run(wait time.Duration) error {
	pending, err := s.outbox.pending()
	if err != nil {
		return err
	}
	for _, k := range pending {
		j := s.job(k.job)
		j.Round, j.Attempt = k.round, k.attempt
		if j.Err = s.deliver(k, j); errors.Is(j.Err, ErrUnavailable) || s.ctx.Err() != nil {
			return j.Err
		}
	}
	answer, err := s.servers.poll(s.ctx, s.index, wait, s.known())
	if err != nil {
		return err
	}
	s.index = max(s.index, answer.GetIndex())
	open := map[string]bool{}
	for _, w := range answer.GetWork() {
		if !s.wanted(w.GetJob()) {
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

// job is the summary of a job.
func (s *syncing) job(name string) *JobSummary {
	j := s.jobs[name]
	if j == nil {
		j = &JobSummary{Job: name, Model: -1}
		s.jobs[name] = j
	}
	return j
}

func (s *syncing) summary() *Summary {
	out := &Summary{Jobs: []JobSummary{}, Finished: true}
	records := s.record.Load().Jobs
	for name := range records {
		if s.wanted(name) {
			s.job(name)
			out.Finished = out.Finished && s.upToDate(name)
		}
	}
	for name, j := range s.jobs {
		if f, err := s.model(name); err == nil {
			j.Model = f.version
		}
		log := s.log.With("job", name, "round", j.Round, "attempt", j.Attempt)
		switch {
		case j.Err != nil:
			log.Warn("did not take part to the end", "outcome", j.Outcome, "error", j.Err)
		case j.Outcome != "" && !j.Earlier:
			log.Info("settled", "outcome", j.Outcome, "charge", j.Charge)
		}
		out.Finished = out.Finished && records[name] != nil
		out.Jobs = append(out.Jobs, *j)
	}
	slices.SortFunc(out.Jobs, func(a, b JobSummary) int { return strings.Compare(a.Job, b.Job) })
	out.Finished = out.Finished && len(out.Jobs) > 0
	return out
}

func (d *Device) wanted(job string) bool {
	return len(d.cfg.Jobs) == 0 || slices.Contains(d.cfg.Jobs, job)
}

// known is what need not be shown again.
func (d *Device) known() []*undertonev1.Participation {
	var out []*undertonev1.Participation
	add := func(k attemptKey) {
		out = append(out, &undertonev1.Participation{Job: k.job, Round: uint32(k.round), Attempt: uint32(k.attempt)})
	}
	for name, j := range d.record.Load().Jobs {
		if n := len(j.Attempts); n > 0 && j.Attempts[n-1].Outcome != "" {
			add(attemptKey{name, j.Attempts[n-1].Round, j.Attempts[n-1].Attempt})
		}
	}
	for k := range d.passed {
		add(k)
	}
	return out
}

// take takes part in an attempt that is open.
func (s *syncing) take(w *undertonev1.Work, j *JobSummary) error {
	if w.GetRound() < 1 || w.GetAttempt() < 1 || len(w.GetSpecDigest()) != len(digest{}) || len(w.GetStateDigest()) != len(digest{}) {
		return fmt.Errorf("%w: a malformed offer of work", ErrDigest)
	}
	k := attemptKey{w.GetJob(), int(w.GetRound()), int(w.GetAttempt())}
	j.Round, j.Attempt, j.Outcome, j.Earlier = k.round, k.attempt, "", false
	if why := s.passed[k]; why != nil {
		return why
	}
	err := s.takePart(k, w, j)
	if final(err) {
		s.passed[k] = err
	}
	return err
}

func (s *syncing) takePart(k attemptKey, w *undertonev1.Work, j *JobSummary) error {
	spec, err := s.spec(k.job, digest(w.GetSpecDigest()))
	if err != nil {
		return err
	}
	if k.round > len(spec.Releases) {
		return fmt.Errorf("%w: round %d of %d", ErrDigest, k.round, len(spec.Releases))
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
	if err := s.cfg.Accept(spec.Spec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDeclined, err)
	}
	return spec, nil
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
// Fails with ErrCap. A contribution that is counted already, of this identity but
// not of this folder, was made whatever the cap says.
func (s *syncing) charge(k attemptKey, r *release, next *record, elsewhere bool, j *JobSummary) error {
	job := next.job(k.job)
	if n := len(job.Attempts); n > 0 && !job.Attempts[n-1].before(k.round, k.attempt) {
		return fmt.Errorf("%w: %v, after attempt %d of round %d", ErrBackwards, k, job.Attempts[n-1].Attempt, job.Attempts[n-1].Round)
	}
	entry := disclosure{Round: k.round, Attempt: k.attempt, State: r.digest, Charge: r.spec.Releases[k.round-1].Charge}
	spent, err := next.spent()
	if err != nil {
		return err
	}
	if elsewhere {
		entry.Outcome = Elsewhere
	} else {
		filter := accounting.Filter{Budget: s.budget}
		if err := also(filter.Reserve(spent), filter.Reserve(entry.Charge)); err != nil {
			refused := fmt.Errorf("%w of %v: %v are spent, and %v asks for %v", ErrCap, s.budget, spent, k, entry.Charge)
			return also(refused, s.keep(next))
		}
	}
	job.Attempts = append(job.Attempts, entry)
	if err := s.save(next); err != nil {
		return err
	}
	j.Outcome, j.Charge = entry.Outcome, entry.Charge
	return nil
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
	var charged *disclosure
	if job := known.Jobs[k.job]; job != nil {
		charged = job.attempt(k.round, k.attempt)
	}
	if charged == nil {
		// The record comes first, so nobody sent this. Nobody will.
		return also(fmt.Errorf("%s: %w: it is of no attempt on the record", s.outbox.path(k), ErrCorrupt), s.outbox.remove(k))
	}
	if charged.Outcome != "" {
		j.Outcome, j.Earlier = charged.Outcome, true
		return s.outbox.remove(k)
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

// upToDate reports whether a job is over, and the personal model that of its end.
func (d *Device) upToDate(job string) bool {
	j := d.record.Load().Jobs[job]
	if j == nil || j.Released < j.Rounds {
		return false
	}
	f, err := d.model(job)
	return err == nil && f.version == j.Rounds
}

// refresh fetches a job's latest release, and fits the personal model to it.
func (s *syncing) refresh(job string, j *JobSummary) error {
	known := s.record.Load().Jobs[job]
	var spec *jobSpec
	var err error
	if known != nil {
		spec, err = s.spec(job, known.Spec)
	} else if spec, err = s.library.fetchSpec(func() ([]byte, error) { return s.servers.spec(s.ctx, job) }); err == nil {
		spec, err = s.spec(job, spec.digest)
	}
	if err != nil {
		return err
	}
	for {
		head, err := s.servers.latest(s.ctx, job, s.index)
		if err != nil {
			return err
		}
		version := int(head.GetVersion())
		if len(head.GetDigest()) != len(digest{}) || version > len(spec.Releases) {
			return fmt.Errorf("%w: a malformed answer for the latest model", ErrDigest)
		}
		r, next, err := s.state(spec, version, digest(head.GetDigest()), head.GetSize())
		var refused *RefusedError
		if errors.As(err, &refused) && refused.Reason == undertonev1.Reason_REASON_SUPERSEDED {
			continue // a later one was released meanwhile
		}
		if err != nil {
			return err
		}
		return also(s.keep(next), s.fit(r, j))
	}
}

// fit fits the personal model to a release, unless it is fitted to that.
func (s *syncing) fit(r *release, j *JobSummary) error {
	if f, err := s.model(r.spec.Job); err == nil && f.version >= r.version {
		return nil
	}
	samples, err := s.refit(r)
	if j.Samples == nil {
		j.Samples = samples
	}
	if err != nil {
		return err
	}
	j.Updated = true
	if s.cfg.Library != nil {
		return nil // others may need what this device does not
	}
	keep := map[digest]bool{}
	for name, known := range s.record.Load().Jobs {
		keep[known.Spec], keep[known.State] = true, true
		if f, err := s.model(name); err == nil {
			keep[f.digest] = true
		}
	}
	return s.library.prune(keep)
}

// Fit fits the personal model of a job to the samples as they are now, and to the
// release that it belongs to. It needs no network; after Sync brought a new
// release it is not needed. Fails with the errors of Predict, of Config.Samples
// and of local.Solver.
func (d *Device) Fit(job string) error {
	if d.cfg.Offline {
		return ErrClosed
	}
	f, err := d.model(job)
	if err != nil {
		return err
	}
	samples, err := d.refit(f.release)
	return also(samples, err)
}

// refit makes and stores a personal model for a release. Where the samples are
// unusable, which it returns as the first error, it is the shared part alone.
func (d *Device) refit(r *release) (samples, err error) {
	d.fitting.Lock()
	defer d.fitting.Unlock()
	r.spec.equip(&d.solver)
	data, samples := d.cfg.Samples(r.spec.Job, r.Config.Dim)
	var fit *local.Fit
	if samples == nil {
		fit, samples = d.solver.Solve(&r.Model, data)
	}
	if samples != nil {
		data = local.Samples{}
		if fit, err = d.solver.Solve(&r.Model, data); err != nil {
			return samples, err
		}
	}
	own := fit.Personal(data.Columns)
	encoded, err := own.MarshalBinary()
	if err != nil {
		return samples, err
	}
	p := personal{Spec: r.spec.digest, Version: r.version, State: r.digest, Samples: len(data.Y), Own: encoded}
	if err := d.files.write(d.modelPath(r.spec.Job), p.encode()); err != nil {
		return samples, err
	}
	d.predicting.Lock()
	defer d.predicting.Unlock()
	d.fitted[r.spec.Job] = &fitted{r, own}
	return samples, nil
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
