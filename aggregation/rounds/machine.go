package rounds

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Machine is the state of all jobs. It serves one goroutine at a time.
type Machine struct {
	clients registry
	jobs    map[string]*job
	staged  staging // for jobs to be created
	era     int     // how often the state was taken from a backup

	ledger *ledger.Log // nil until it begins
	origin string      // its name
	keys   []string    // all that ever signed its checkpoints, public; the last one does

	// Of the command being applied, here so that nothing is allocated anew.
	at     int64 // when it was proposed, by somebody's clock: for the ledger alone
	effect effect
	batch  roaring.Bitmap
}

// NewMachine returns a machine without jobs or clients.
func NewMachine() *Machine {
	return &Machine{
		clients: registry{numbers: make(map[ClientID]uint32)},
		jobs:    make(map[string]*job),
	}
}

// Apply performs a command, or refuses it with a *Refusal. The effect is the
// digest of everything that the command changed, in a canonical form: two
// machines that applied the same commands with the same effects hold the same
// state and ledger. A refusal has an effect too, its reason and figures. The machine
// keeps none of the command's memory.
func (m *Machine) Apply(c Command) (effect Digest, err error) {
	m.effect, m.at = m.effect[:0], 0
	if dated, ok := c.(Dated); ok {
		m.at, c = min(dated.At, ledger.MaxTime), dated.Command
	}
	if refusal := m.apply(c); refusal != nil {
		m.effect.refusal(refusal)
		err = refusal
	}
	return m.effect.sum(), err
}

func (m *Machine) apply(c Command) *Refusal {
	switch c := c.(type) {
	case CreateJob:
		return m.createJob(c)
	case Run:
		return m.run(c)
	case OpenRound:
		return m.openRound(c)
	case Stage:
		return m.stage(c)
	case Collect:
		return m.collect(c)
	case CloseRound:
		return m.closeRound(c)
	case ReleaseRound:
		return m.releaseRound(c)
	case FailRound:
		return m.failRound(c)
	case BeginLedger:
		return m.beginLedger(c)
	case RotateKey:
		return m.rotateKey(c)
	case CloseJob:
		return m.closeJob(c)
	case RecordCanary:
		return m.recordCanary(c)
	}
	return refuse(Malformed, "%T is no command", c)
}

func (m *Machine) createJob(c CreateJob) *Refusal {
	spec, err := parseSpec(c.Spec)
	if err != nil {
		return refuse(Malformed, "%v", err)
	}
	if j := m.jobs[spec.Job]; j != nil {
		// State 0 is known until a release replaces it.
		if !bytes.Equal(j.raw.Bytes, c.Spec) || j.released == 0 && j.latest.Digest != c.State.Digest {
			return refuse(JobExists, "%s is there, with another specification or state", spec.Job)
		}
		return nil
	}
	state, refusal := m.staged.resolve(spec.Job, c.State)
	if refusal != nil {
		return refusal
	}
	j := newJob(spec, bytes.Clone(c.Spec), bytes.Clone(state))
	j.era = m.era
	m.jobs[spec.Job] = j
	m.staged.dropJob(spec.Job)
	m.effect.word("job")
	m.effect.digest(j.raw.Digest)
	m.effect.digest(j.latest.Digest)
	m.record(j.jobCreated(j.latest.Digest))
	return nil
}

func (m *Machine) run(c Run) *Refusal {
	j, refusal := m.job(c.Job)
	if refusal != nil {
		return refusal
	}
	switch {
	case j.closed:
		return refuse(NotRunning, "%s is closed", c.Job)
	case c.Until == NoRound:
		j.runs, j.until = false, 0
	case c.Until < 0 || c.Until > len(j.spec.Releases):
		return refuse(Malformed, "until round %d of %d", c.Until, len(j.spec.Releases))
	default:
		j.runs, j.until = true, c.Until
	}
	m.effect.word("run")
	m.effect.numbers(uint64(c.Until))
	return nil
}

func (m *Machine) openRound(c OpenRound) *Refusal {
	j, refusal := m.job(c.Job)
	if refusal != nil {
		return refusal
	}
	if refusal := j.open(c.Round, c.Attempt); refusal != nil {
		return refusal
	}
	a := j.last()
	m.effect.attempt("open", a)
	m.effect.numbers(uint64(a.Charge), uint64(j.filter.Spent()))
	m.record(j.attemptCharged(a, j.latest.Digest, j.filter.Spent()))
	return nil
}

func (m *Machine) stage(c Stage) *Refusal {
	if !validName(c.Job) {
		return refuse(Malformed, "job %.64q: want %s", c.Job, nameRule)
	}
	var err *Refusal
	if c.Round == 0 && c.Attempt == 0 {
		err = m.stageJob(c)
	} else {
		err = m.stageAttempt(c)
	}
	if err != nil {
		return err
	}
	m.effect.word("stage")
	m.effect.digest(c.Digest)
	m.effect.numbers(uint64(c.Offset), uint64(len(c.Piece)))
	return nil
}

func (m *Machine) stageJob(c Stage) *Refusal {
	j := m.jobs[c.Job]
	switch {
	case j != nil && j.released == 0 && j.latest.Digest == c.Digest:
		return nil // it was there, and the job was made of it
	case j != nil:
		return refuse(JobExists, "%s is there", c.Job)
	case c.Size < 1 || c.Size > maxState:
		return refuse(Malformed, "a state of %d bytes, want 1 to %d", c.Size, maxState)
	}
	return m.staged.put(c)
}

func (m *Machine) stageAttempt(c Stage) *Refusal {
	j, a, refusal := m.attempt(c.Job, c.Round, c.Attempt)
	if refusal != nil {
		return refusal
	}
	switch a.Phase {
	case Collecting:
		if c.Size != j.sumSize() {
			return refuse(Malformed, "a sum of %d bytes, want %d", c.Size, j.sumSize())
		}
	case Closed:
		if c.Size < 1 || c.Size > maxState {
			return refuse(Malformed, "a state of %d bytes, want 1 to %d", c.Size, maxState)
		}
	default:
		return a.over()
	}
	return j.staged.put(c)
}

func (m *Machine) closeRound(c CloseRound) *Refusal {
	j, a, refusal := m.attempt(c.Job, c.Round, c.Attempt)
	if refusal != nil {
		return refusal
	}
	if a.Phase != Collecting {
		return a.over()
	}
	m.close(j)
	return nil
}

// close ends collecting.
func (m *Machine) close(j *job) {
	if a := j.last(); a.Members < j.spec.NMin {
		m.fail(j, fmt.Sprintf(whyTooFew, a.Members, j.spec.NMin))
	} else {
		j.close()
		m.effect.attempt("close", a)
		m.effect.digest(a.Sum)
	}
}

// fail gives the open attempt up.
func (m *Machine) fail(j *job, why string) {
	j.fail(why)
	m.effect.attempt("fail", j.last())
	m.record(j.attemptEnded(j.last()))
}

func (m *Machine) releaseRound(c ReleaseRound) *Refusal {
	j, a, refusal := m.attempt(c.Job, c.Round, c.Attempt)
	if refusal != nil {
		return refusal
	}
	switch a.Phase {
	case Collecting:
		return refuse(NotClosed, "%v still collects", *a)
	case Closed:
	default:
		return a.over()
	}
	state, refusal := j.staged.resolve(c.Job, c.State)
	if refusal != nil {
		return refusal
	}
	j.release(Blob{Digest: c.State.Digest, Size: c.State.Size, Bytes: bytes.Clone(state)})
	m.effect.attempt("release", a)
	m.effect.digest(a.State)
	m.record(j.attemptEnded(a))
	if j.finished() {
		m.record(j.jobClosed())
	}
	return nil
}

func (m *Machine) failRound(c FailRound) *Refusal {
	if !validLine(c.Why) {
		return refuse(Malformed, "why: want one line of 1 to %d bytes", MaxWhy)
	}
	j, a, refusal := m.attempt(c.Job, c.Round, c.Attempt)
	if refusal != nil {
		return refusal
	}
	if a.Phase != Collecting && a.Phase != Closed {
		return a.over()
	}
	m.fail(j, c.Why)
	return nil
}

func (m *Machine) closeJob(c CloseJob) *Refusal {
	j, refusal := m.job(c.Job)
	if refusal != nil {
		return refusal
	}
	if j.closed || j.finished() {
		return nil
	}
	if j.isOpen() {
		m.fail(j, whyJobClosed)
	}
	j.closed = true
	m.effect.word("close job")
	m.record(j.jobClosed())
	return nil
}

// job finds a job.
func (m *Machine) job(name string) (*job, *Refusal) {
	j := m.jobs[name]
	if j == nil {
		return nil, refuse(UnknownJob, "no job %.64q", name)
	}
	return j, nil
}

// attempt finds an attempt that was opened.
func (m *Machine) attempt(name string, round, attempt int) (*job, *Attempt, *Refusal) {
	j, refusal := m.job(name)
	if refusal != nil {
		return nil, nil, refusal
	}
	a, refusal := j.attempt(round, attempt)
	return j, a, refusal
}

// Jobs returns the names of all jobs, sorted.
func (m *Machine) Jobs() []string { return slices.Sorted(maps.Keys(m.jobs)) }

// Job returns a job, false if there is none of that name.
func (m *Machine) Job(name string) (JobView, bool) {
	j := m.jobs[name]
	if j == nil {
		return JobView{}, false
	}
	return JobView{
		Spec:     j.spec,
		Raw:      j.raw,
		State:    j.state(),
		Until:    j.until,
		Released: j.released,
		Latest:   j.latest,
		Spent:    j.filter.Spent(),
		Attempts: slices.Clip(j.attempts),
		Next:     j.nextNumber(),
	}, true
}

// Sum returns the sum of a closed attempt: one value a coordinate, in the
// lattice's centred range. nil unless the job's last attempt is Closed. It
// never changes, and may be kept.
func (m *Machine) Sum(job string) []int64 {
	j := m.jobs[job]
	if j == nil || j.last() == nil || j.last().Phase != Closed {
		return nil
	}
	return j.sum
}

// Member reports whether the client's contribution was added to the sum of an
// attempt, and whether that is known: it is for the job's last two attempts,
// failed ones among them.
func (m *Machine) Member(job string, round, attempt int, id ClientID) (in, known bool) {
	j := m.jobs[job]
	if j == nil {
		return false, false
	}
	members := j.membersOf(round, attempt)
	if members == nil {
		return false, false
	}
	n, registered := m.clients.numbers[id]
	return registered && members.Contains(n), true
}

// Clients is the number of clients that ever took part.
func (m *Machine) Clients() int { return len(m.clients.order) }
