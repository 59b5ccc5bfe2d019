package report

import (
	"encoding/json"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Version of the report's format, and of Export's.
const Version = 1

// VerifyCommand verifies the bundle that FetchCommand writes.
const (
	FetchCommand  = "undertone audit fetch"
	VerifyCommand = "undertone audit verify ledger.zip --key ledger.pub"
)

// New computes the report of a verified history and of its signed checkpoint.
func New(h *ledger.History, checkpoint []byte) (*Report, error) {
	r := &Report{
		Version: Version,
		Ledger: Ledger{
			Origin: h.Checkpoint.Origin, Records: h.Checkpoint.Size, Root: h.Checkpoint.Root.String(),
			Checkpoint: string(checkpoint), Key: h.Key, Rotations: h.Rotations,
			Began: date(h.Began), Last: date(h.Last), Carried: h.Before, Restored: h.Restored,
			Fetch: FetchCommand, Command: VerifyCommand,
		},
		Jobs: newJobs(h),
	}
	var together sum
	for _, j := range h.Jobs {
		together.add(j)
	}
	r.Together = together.together()
	r.Together.Jobs = len(h.Jobs)
	r.NotCovered = notCovered(h)
	return r, nil
}

// slack is how far apart clocks may be that are right.
const slack = time.Minute

// MadeAt notes what the history's times say at the reader's.
func (r *Report) MadeAt(now time.Time, h *ledger.History) {
	r.Ledger.Ahead = h.DatedAfter(now.Add(slack).UnixMilli())
}

// WriteJSON writes the report as its format page says. Fails if an accountant cannot count
// a job's cost, or w does.
func (r *Report) WriteJSON(w io.Writer) error {
	r.reckon()
	return writeJSON(w, r)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// newJobs takes an epsilon or two for each attempt.
func newJobs(h *ledger.History) []Job {
	all := h.Jobs
	out := make([]Job, len(all))
	reckoner := newReckoner()
	inParallel(len(all), func() func(i int) {
		known := make(prices)
		return func(i int) {
			out[i] = newJob(all[i], h.Before, known.pricing(&all[i].Specification))
			out[i].Accountants = reckoner.answers(all[i])
		}
	})
	return out
}

// reckon has every job's accountants answer, whose errors come when they are asked again.
func (r *Report) reckon() {
	inParallel(len(r.Jobs), func() func(i int) {
		return func(i int) { r.Jobs[i].Accountants.All() }
	})
}

// inParallel calls, for 0 to n-1, what worker returns, of which each processor has its own.
func inParallel(n int, worker func() func(i int)) {
	var taken atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wait.Go(func() {
			do := worker()
			for i := int(taken.Add(1)) - 1; i < n; i = int(taken.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wait.Wait()
}

// newJob is a job's account. Records up to that of index before are of what is older than
// the ledger.
func newJob(j *ledger.Job, before int64, price *pricing) Job {
	s := &j.Specification
	job := Job{
		Name: j.Name, Method: s.Method, Status: status(j), Created: date(j.Created), Carried: j.Record <= before,
		Unit:      unit,
		Adjacency: s.Adjacency.String(), AdjacencyMeans: adjacencyMeans(s.Adjacency),
		Trust: trust(j),
		Delta: s.Delta, Population: population(j), DeltaTimesN: s.Delta * float64(population(j)),
		Cap: price.of(s.Budget), Spent: price.of(j.Spent), Left: price.of(s.Budget - j.Spent),
		Rounds: len(s.Releases), Released: j.Released,
		Parameters: parameters(j, price),
		Attempts:   make([]Attempt, 0, len(j.Attempts)),
	}
	var spent, failed accounting.NanoRho // sums of charges that Verify held within the budget
	for i := range j.Attempts {
		a := &j.Attempts[i]
		spent += a.Charge
		if a.Status == ledger.StatusFailed {
			job.FailedAttempts++
			failed += a.Charge
		}
		job.Attempts = append(job.Attempts, newAttempt(j, a, before, price, spent))
	}
	job.FailedSpent = price.of(failed)
	job.DeltaMeans = job.CompareDelta(few)
	job.Canaries = len(j.Canaries)
	for i := range slices.Backward(j.Canaries) {
		c := &j.Canaries[i]
		if job.Canary == nil {
			job.Canary = newCanary(s, c)
		}
		if !c.Passed || c.Lower > c.Claimed {
			job.CanaryFailed = newCanary(s, c)
			break
		}
	}
	return job
}

// status is what a ledger knows of a job's state. Whether an open one runs or is paused
// is not on record.
func status(j *ledger.Job) string {
	s := &j.Specification
	last := len(j.Attempts) - 1
	switch {
	case j.Closed && j.Released == len(s.Releases):
		return "finished"
	case j.Closed:
		return "closed"
	case j.Released < len(s.Releases) && s.Budget-j.Spent < s.Releases[j.Released].Charge &&
		(last < 0 || j.Attempts[last].Status != ledger.StatusOpen):
		return "exhausted"
	case last < 0:
		return "created"
	}
	return "open"
}

func newAttempt(j *ledger.Job, a *ledger.Attempt, before int64, price *pricing, spent accounting.NanoRho) Attempt {
	out := Attempt{
		Round: a.Round, Attempt: a.Attempt,
		Kind: j.Specification.Releases[a.Round-1].Kind,
		Clip: clip(&a.Mechanism), Noise: deviation(j, &a.Mechanism), Multiplier: multiplier(j, &a.Mechanism),
		NMin: a.Mechanism.NMin, Members: a.Members, Sampler: a.Mechanism.Sampler,
		Charge: price.of(a.Charge), Spent: price.of(spent),
		Leaf: a.Record, EndLeaf: a.End,
		Status: string(a.Status), Why: a.Why,
		Opened: date(a.Opened), Carried: a.Record <= before,
	}
	if a.Status != ledger.StatusOpen {
		out.Ended = date(a.Ended)
	}
	if a.Status == ledger.StatusReleased {
		out.State = a.State.String()
	}
	return out
}

func newCanary(s *ledger.Specification, c *ledger.CanaryMeasured) *Canary {
	delta, err := strconv.ParseFloat(c.Delta, 64)
	if err != nil {
		delta = s.Delta // Verify has read it
	}
	return &Canary{
		Charged: charged(s, delta),
		Claimed: float64(c.Claimed) / 1e6, Lower: float64(c.Lower) / 1e6, Upper: float64(c.Upper) / 1e6,
		Delta: c.Delta, Confidence: float64(c.Confidence) / 1e6,
		Trials: c.Trials, Passed: c.Passed, By: c.By, Date: date(c.Measured), How: c.How, HowMeans: HowMeans(c.How),
	}
}

// charged is the epsilon of an attempt at every round: what a canary measures.
func charged(s *ledger.Specification, delta float64) float64 {
	rho := 0.0
	for i := range s.Releases {
		rho += s.Releases[i].Charge.Rho()
	}
	return accounting.GaussianEpsilon(mu(rho), delta)
}

// date is a time, empty for one beyond those of RFC 3339, with years of four digits.
func date(milliseconds int64) string {
	t := time.UnixMilli(milliseconds).UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return ""
	}
	return t.Format(time.RFC3339)
}

// clip is a contribution's largest norm, in the method's units.
func clip(m *ledger.Mechanism) float64 { return math.Ldexp(float64(m.Clip), -int(m.ScaleBits)) }

// deviation is the standard deviation of the noise that is charged for, in the method's
// units: n_min contributions' together, and with local trust one's alone.
func deviation(j *ledger.Job, m *ledger.Mechanism) float64 {
	return math.Ldexp(latticeDeviation(j, m), -int(m.ScaleBits))
}

// latticeDeviation is deviation in lattice units.
func latticeDeviation(j *ledger.Job, m *ledger.Mechanism) float64 {
	return math.Sqrt(float64(j.Specification.Parts())) * math.Ldexp(float64(m.Sigma), -20)
}

// sensitivity under the job's adjacency, in lattice units.
func sensitivity(m *ledger.Mechanism) float64 {
	return m.Adjacency.SensitivityFactor() * float64(m.Clip)
}

// multiplier is the noise that is charged for over the sensitivity.
func multiplier(j *ledger.Job, m *ledger.Mechanism) float64 {
	return latticeDeviation(j, m) / sensitivity(m)
}
