package ledger

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// replay goes through a log's records in order, as the rounds of its jobs did, and stops
// at the first that cannot be.
type replay struct {
	history        *History
	specifications map[Digest]specification
	named          map[Digest]bool // specifications that a job has
	jobs           map[string]*jobReplay
	costs          map[Mechanism]cost // rounds and jobs are much alike
	keys           keyChain
	index          int64 // of the next record
	era            int
	open           int        // attempts
	finished       *jobReplay // whose last round the record before released
}

// jobReplay is a job, at most one of whose attempts is open: the last.
type jobReplay struct {
	*Job
	state Digest // the latest
	open  bool
}

type cost struct {
	nano accounting.NanoRho
	ok   bool
}

func newReplay(specifications map[Digest]specification) *replay {
	return &replay{
		history:        new(History),
		specifications: specifications,
		named:          make(map[Digest]bool),
		jobs:           make(map[string]*jobReplay),
		costs:          make(map[Mechanism]cost),
	}
}

// next takes the next record.
func (r *replay) next(e Entry) *Fault {
	job := jobOf(e)
	err := r.checkPlace(e)
	if err == nil {
		err = r.take(e, job)
	}
	if err != nil {
		sentinel := ErrHistory
		for _, is := range []error{ErrEntry, ErrSignature, ErrBundle} {
			if errors.Is(err, is) {
				sentinel = is
			}
		}
		return &Fault{r.index, printable(job), clean(err, sentinel), sentinel}
	}
	r.index++
	r.history.Last = e.stamp().Time
	r.history.times = append(r.history.times, r.history.Last)
	return nil
}

// checkPlace holds what is asked of a record of any kind where it is.
func (r *replay) checkPlace(e Entry) error {
	_, begins := e.(*Begun)
	closed, closes := e.(*JobClosed)
	switch at := e.stamp().Time; {
	case r.index == 0 && !begins:
		return errors.New("the ledger does not begin with its name and its key")
	case r.index > 0 && begins:
		return errors.New("the ledger begins a second time")
	case r.wasThere() && at != r.history.Began:
		return fmt.Errorf("its time is %d, and that of the beginning, which it is part of, %d", at, r.history.Began)
	case r.wasThere() && !canBeHistory(e):
		return errors.New("it is part of the beginning, which says what jobs there were, and says something else")
	case at > MaxTime:
		return fmt.Errorf("its time, %d, is no date: it is after the year 9999", at)
	case at < r.history.Last:
		return fmt.Errorf("its time, %d, is before that of the record before, %d", at, r.history.Last)
	case r.finished != nil && !(closes && closed.Job == r.finished.Name):
		return fmt.Errorf("the last round of job %s was released: here that job ought to be closed", r.finished.Name)
	}
	r.finished = nil
	return nil
}

// jobOf is the job that an entry is of, empty if it is of none.
func jobOf(e Entry) string {
	switch e := e.(type) {
	case *JobCreated:
		return e.Job
	case *AttemptCharged:
		return e.Job
	case *Released:
		return e.Job
	case *Failed:
		return e.Job
	case *JobClosed:
		return e.Job
	case *CanaryMeasured:
		return e.Job
	}
	return ""
}

func (r *replay) take(e Entry, job string) error {
	switch e := e.(type) {
	case *Begun:
		return r.begun(e)
	case *KeyRotated:
		return r.keyRotated(e)
	case *Restored:
		return r.restored(e)
	case *JobCreated:
		return r.jobCreated(e)
	}
	j := r.jobs[job]
	if j == nil {
		return errors.New("there is no such job")
	}
	if canary, is := e.(*CanaryMeasured); is {
		return r.canary(j, canary) // also of a job that is closed
	}
	if j.Closed {
		return errors.New("the job is closed")
	}
	switch e := e.(type) {
	case *AttemptCharged:
		return r.charged(j, e)
	case *Released:
		return r.released(j, e)
	case *Failed:
		return r.failed(j, e)
	case *JobClosed:
		return j.close(e, r.index)
	}
	return fmt.Errorf("%w: no reader of %T", ErrEntry, e)
}

// wasThere reports whether the record says what there was before the ledger began.
func (r *replay) wasThere() bool { return r.index > 0 && r.index <= r.history.Before }

// canBeHistory reports whether an entry can be one of those: keys were none's, and a state
// knows of a job's rounds, not of its measurements.
func canBeHistory(e Entry) bool {
	switch e.(type) {
	case *KeyRotated, *CanaryMeasured:
		return false
	}
	return true
}

// end is after the last record.
func (r *replay) end() *Fault {
	switch {
	case r.index == 0:
		return &Fault{-1, "", "there are no records: a ledger begins with its name and its key", ErrHistory}
	case r.index-1 < r.history.Before:
		return &Fault{r.index - 1, "", fmt.Sprintf("the ledger breaks off within its beginning, of %d records", r.history.Before), ErrHistory}
	case r.finished != nil:
		return &Fault{r.index - 1, r.finished.Name, "the last round is released, and the job is not closed", ErrHistory}
	}
	return nil
}

// unnamed is a specification that no job has: nothing was verified of it.
func (r *replay) unnamed() *Fault {
	for _, digest := range slices.SortedFunc(maps.Keys(r.specifications), compareDigests) {
		if !r.named[digest] {
			return &Fault{-1, "", fmt.Sprintf("specification %v is in the bundle, and of no job", digest), ErrBundle}
		}
	}
	return nil
}

func (r *replay) begun(e *Begun) error {
	if e.Format != Format {
		return fmt.Errorf("%w: its records have format %d, and this program reads %d", ErrEntry, e.Format, Format)
	}
	if e.History < 0 {
		return fmt.Errorf("%w: it begins with %d records", ErrEntry, e.History)
	}
	if CheckKey(e.Origin, e.Key) != nil {
		return fmt.Errorf("%w: the first key is no key of %.64q", ErrSignature, e.Origin)
	}
	key, err := parseKey(e.Key)
	if err != nil {
		return err
	}
	r.keys = append(r.keys, key)
	r.history.Began, r.history.Before = e.Time, e.History
	return nil
}

func (r *replay) keyRotated(e *KeyRotated) error {
	if _, err := CheckEndorsement(r.keys.signer().Verifier, e.Key, e.Endorsement); err != nil {
		return err
	}
	key, err := parseKey(e.Key)
	if err != nil {
		return err
	}
	if r.keys.has(key) {
		return errKeyAgain
	}
	r.keys = append(r.keys, key)
	return nil
}

// restored begins an era. A ledger that was begun after some says so first of all.
func (r *replay) restored(e *Restored) error {
	switch {
	case r.open > 0:
		return fmt.Errorf("a backup is taken up, and attempts of %d jobs have not failed", r.open)
	case r.wasThere() && r.index > 1:
		return errors.New("a backup is taken up within the beginning")
	case e.Era != r.era+1 && !(r.wasThere() && e.Era > r.era):
		return fmt.Errorf("era %d begins after era %d", e.Era, r.era)
	case e.Era > maxEra:
		return fmt.Errorf("era %d begins, and there are %d at most", e.Era, maxEra)
	}
	r.era = e.Era
	r.history.Restored = append(r.history.Restored, r.index)
	return nil
}

func (r *replay) jobCreated(e *JobCreated) error {
	spec, there := r.specifications[e.Specification]
	switch {
	case r.jobs[e.Job] != nil:
		return errors.New("there is such a job")
	case !there:
		return fmt.Errorf("%w: its specification, %v, is not in the bundle", ErrBundle, e.Specification)
	case spec.err != nil:
		return fmt.Errorf("%w: its specification, %v: %v", ErrBundle, e.Specification, spec.err)
	case e.Job != spec.Job:
		return fmt.Errorf("its specification is of job %.64q", spec.Job)
	case e.State == (Digest{}) && !r.wasThere():
		return errors.New("it has no state 0")
	case e.Budget != spec.Budget:
		return fmt.Errorf("its budget is %d nano-rho, and that of its specification %d", e.Budget, spec.Budget)
	}
	j := &Job{
		Name: e.Job, Record: r.index, Created: e.Time,
		Specification: *spec.Specification, Digest: e.Specification, Raw: spec.raw,
		State: e.State, End: -1,
	}
	r.named[e.Specification] = true
	if spec.twice != "" {
		r.doubt(e.Job, "its specification's parameters have a field %.64q twice: readers may take either", spec.twice)
	}
	r.jobs[e.Job] = &jobReplay{Job: j, state: e.State}
	r.history.Jobs = append(r.history.Jobs, j)
	return nil
}

func (r *replay) charged(j *jobReplay, e *AttemptCharged) error {
	spec := &j.Specification
	if err := r.checkNumber(j, e); err != nil {
		return err
	}
	release := &spec.Releases[e.Round-1]
	mechanism := spec.Mechanism(e.Round)
	recomputed, known := r.costs[mechanism]
	if !known {
		recomputed.nano, recomputed.ok = mechanism.cost(spec.Parts()) // which follow from it
		r.costs[mechanism] = recomputed
	}
	switch {
	case e.Specification != j.Digest:
		return fmt.Errorf("it names specification %v, and the job has %v", e.Specification, j.Digest)
	case e.State == (Digest{}) && !r.wasThere():
		return errors.New("it names no state")
	case e.State != j.state:
		return fmt.Errorf("it names state %v, and the latest is %v", e.State, j.state)
	case e.Charge != release.Charge:
		return fmt.Errorf("its charge is %d nano-rho, and that of the specification %d", e.Charge, release.Charge)
	case !recomputed.ok:
		return fmt.Errorf("its charge is %d nano-rho, and the noise costs more than can be counted", e.Charge)
	case e.Charge < recomputed.nano:
		return fmt.Errorf("its charge is %d nano-rho, and the noise costs %d", e.Charge, recomputed.nano)
	case e.Charge > spec.Budget-j.Spent:
		return fmt.Errorf("the budget is exceeded: its charge is %d nano-rho, and of %d are %d spent", e.Charge, spec.Budget, j.Spent)
	case e.Spent != j.Spent+e.Charge:
		return fmt.Errorf("it says that %d nano-rho are spent, and it is %d", e.Spent, j.Spent+e.Charge)
	}
	j.Spent = e.Spent
	j.Attempts = append(j.Attempts, Attempt{
		Round: e.Round, Attempt: e.Attempt, Record: r.index, Opened: e.Time,
		Charge: e.Charge, Recomputed: recomputed.nano,
		Status: StatusOpen, End: -1, Mechanism: mechanism,
	})
	j.open = true
	r.open++
	return nil
}

// Attempts' numbers, by era: all fit 32 bits.
const (
	eraAttempts = 1_000_000
	maxEra      = 2000
)

// checkNumber holds that an attempt is the one that comes next: at the round after those
// released, and counted from 1, or from where the era begins. Those from before the
// ledger began may be of earlier eras.
func (r *replay) checkNumber(j *jobReplay, e *AttemptCharged) error {
	var last *Attempt
	if n := len(j.Attempts); n > 0 {
		last = &j.Attempts[n-1]
	}
	switch {
	case j.open:
		return fmt.Errorf("attempt %d of round %d is charged while attempt %d of round %d is open", e.Attempt, e.Round, last.Attempt, last.Round)
	case e.Round <= j.Released && e.Round > 0:
		return fmt.Errorf("attempt %d of round %d is charged, and the round is released", e.Attempt, e.Round)
	case e.Round != j.Released+1:
		return fmt.Errorf("attempt %d of round %d is charged, and round %d comes next", e.Attempt, e.Round, j.Released+1)
	}
	era := r.era
	if r.wasThere() && e.Attempt > 0 {
		era = min(era, (e.Attempt-1)/eraAttempts)
		if last != nil {
			era = max(era, (last.Attempt-1)/eraAttempts)
		}
	}
	want := era*eraAttempts + 1
	if last != nil && last.Round == e.Round {
		want = max(want, last.Attempt+1)
	}
	if e.Attempt != want {
		return fmt.Errorf("attempt %d of round %d is charged, and attempt %d comes next", e.Attempt, e.Round, want)
	}
	return nil
}

// ended returns the open attempt, which a record ends.
func (j *jobReplay) ended(round, attempt int) (*Attempt, error) {
	if j.open {
		if a := &j.Attempts[len(j.Attempts)-1]; a.Round == round && a.Attempt == attempt {
			return a, nil
		}
	}
	for i := range slices.Backward(j.Attempts) {
		if a := &j.Attempts[i]; a.Round == round && a.Attempt == attempt {
			return nil, fmt.Errorf("attempt %d of round %d has %s already", attempt, round, a.Status.done())
		}
	}
	return nil, fmt.Errorf("attempt %d of round %d was never charged", attempt, round)
}

func (s Status) done() string {
	if s == StatusReleased {
		return "been released"
	}
	return string(s)
}

func (r *replay) released(j *jobReplay, e *Released) error {
	spec := &j.Specification
	if e.Round > 0 && e.Round <= j.Released {
		return fmt.Errorf("round %d is released a second time", e.Round)
	}
	a, err := j.ended(e.Round, e.Attempt)
	switch {
	case err != nil:
		return fmt.Errorf("a release: %w", err)
	case e.Members < spec.NMin:
		return fmt.Errorf("a release of %d contributions, and n_min is %d", e.Members, spec.NMin)
	case e.Members > spec.RoundSize:
		return fmt.Errorf("a release of %d contributions, and a round has %d at most", e.Members, spec.RoundSize)
	case e.Mechanism != a.Mechanism:
		return fmt.Errorf("a release whose mechanism has %s", difference(&e.Mechanism, &a.Mechanism))
	case e.Sum == (Digest{}):
		return errors.New("a release without a sum")
	case e.State == (Digest{}):
		return errors.New("a release without a state")
	case e.Charge != a.Charge:
		return fmt.Errorf("a release for %d nano-rho, and its attempt was charged %d", e.Charge, a.Charge)
	}
	a.Status, a.End, a.Ended, a.Members = StatusReleased, r.index, e.Time, e.Members
	a.Sum, a.State = e.Sum, e.State
	j.open, j.state = false, e.State
	r.open--
	j.Released++
	if j.Released == len(spec.Releases) {
		r.finished = j
	}
	return nil
}

func (r *replay) failed(j *jobReplay, e *Failed) error {
	a, err := j.ended(e.Round, e.Attempt)
	switch {
	case err != nil:
		return fmt.Errorf("a failure: %w", err)
	case !oneLine(e.Why, maxWhy):
		return fmt.Errorf("%w: why an attempt failed is no line of text", ErrEntry)
	case e.Members < 0 || e.Members > j.Specification.RoundSize:
		return fmt.Errorf("a failure with %d contributions, and a round has %d at most", e.Members, j.Specification.RoundSize)
	}
	if of, is := tooFew(e.Why); is && (of != [2]int{e.Members, j.Specification.NMin} || e.Members >= j.Specification.NMin) {
		return fmt.Errorf("a failure for too few contributions, %q, and it had %d of %d", e.Why, e.Members, j.Specification.NMin)
	}
	a.Status, a.End, a.Ended, a.Members = StatusFailed, r.index, e.Time, e.Members
	a.Why = e.Why
	j.open = false
	r.open--
	return nil
}

// tooFew reads the reason that servers give where contributions were too few: how many
// there were, of how many.
func tooFew(why string) (of [2]int, is bool) {
	const form = "%d contributions of %d"
	if n, err := fmt.Sscanf(why, form, &of[0], &of[1]); n != 2 || err != nil {
		return of, false
	}
	return of, fmt.Sprintf(form, of[0], of[1]) == why
}

func (j *jobReplay) close(e *JobClosed, index int64) error {
	switch {
	case j.open:
		return errors.New("the job is closed while an attempt is open")
	case e.Released != j.Released:
		return fmt.Errorf("it says that %d rounds are released, and it is %d", e.Released, j.Released)
	case e.Spent != j.Spent:
		return fmt.Errorf("it says that %d nano-rho are spent, and it is %d", e.Spent, j.Spent)
	}
	j.Closed, j.End, j.Ended = true, index, e.Time
	return nil
}

func (r *replay) canary(j *jobReplay, e *CanaryMeasured) error {
	if err := e.Check(); err != nil {
		return err
	}
	if !e.possible() {
		r.doubt(e.Job, "a measurement whose trials, %d, are too few for any lower bound of its confidence, %d ppm", e.Trials, e.Confidence)
	}
	if e.Measured-e.Time > slack {
		r.doubt(e.Job, "a measurement that is dated after its record")
	}
	j.Canaries = append(j.Canaries, *e)
	return nil
}

// slack is how far apart clocks may be that are right, in milliseconds.
const slack = 60_000

// possible reports whether so many trials can have given the measurement's lower bound. The
// best that n trials can show is that all went one way; by chance they do with probability
// 2^-n, so at a false-alarm rate of alpha nothing above zero is shown with 2^-n >= alpha.
func (c *CanaryMeasured) possible() bool {
	alpha := 1 - float64(c.Confidence)/1e6
	return c.Lower == 0 || c.Trials >= 64 || math.Ldexp(1, -int(c.Trials)) < alpha
}

// doubt notes what ought to be known of the record.
func (r *replay) doubt(job, format string, args ...any) {
	r.history.Doubts = append(r.history.Doubts, Doubt{r.index, job, fmt.Sprintf(format, args...)})
}

// difference names the first field in which a mechanism is not as it ought to be.
func difference(is, want *Mechanism) string {
	for _, field := range []struct {
		name     string
		is, want any
	}{
		{"length", is.Length, want.Length},
		{"clip", is.Clip, want.Clip},
		{"sigma", is.Sigma, want.Sigma},
		{"scale_bits", is.ScaleBits, want.ScaleBits},
		{"modulus_bits", is.ModulusBits, want.ModulusBits},
		{"n_min", is.NMin, want.NMin},
		{"adjacency", is.Adjacency, want.Adjacency},
		{"trust", printable(is.Trust), want.Trust},
		{"sampler", printable(is.Sampler), want.Sampler},
	} {
		if field.is != field.want {
			return fmt.Sprintf("%s %v, and the specification %v", field.name, field.is, field.want)
		}
	}
	return "no difference"
}

// printable is a text from a record for one line of a message.
func printable(s string) string {
	if quoted := fmt.Sprintf("%.64q", s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

// clean is an error's text without the sentinel's, which a Fault has beside it.
func clean(err, sentinel error) string {
	return strings.ReplaceAll(err.Error(), sentinel.Error()+": ", "")
}
