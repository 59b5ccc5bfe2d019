package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Terms of a job: its privacy, and the size of its rounds.
type Terms struct {
	Job string
	// Epsilon and Delta of all rounds together, failed attempts included, under
	// the adjacency.
	Epsilon, Delta float64
	Adjacency      dp.Adjacency
	Trust          rounds.Trust
	NMin           int
	RoundSize      int
	Deadline       time.Duration
	// Spare is the number of failed attempts, each as dear as the dearest
	// round, that the budget leaves room for.
	Spare int
}

// TermError is a term that cannot be had. Flag is its name on the command line, where all
// but the job's name are flags.
type TermError struct{ Flag, Problem string }

func (e *TermError) Error() string {
	if e.Flag == "job" {
		return "JOB: " + e.Problem
	}
	return "--" + e.Flag + ": " + e.Problem
}

func termError(flag, format string, args ...any) error {
	return &TermError{flag, fmt.Sprintf(format, args...)}
}

// scaleBits of every lattice: contributions have norm about 1, so 2^-24 is far
// below any noise.
const scaleBits = 24

// tailDeviations of a discrete Gaussian are exceeded with probability below
// 2 exp(-16^2/2) < 2^-183: never, over all the coordinates there will be.
const tailDeviations = 16

// New makes a specification of AMHT-LRS: the schedule's releases, the budget
// divided among them in the schedule's shares, for each the least noise that its
// charge pays for, and the smallest lattice that holds the sums. Fails with a
// *TermError.
func New(p Parameters, t Terms) (*rounds.Spec, error) {
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return specify(AMHTLRS, &p, t)
}

// specify makes the specification of a method, whose parameters are the method
// itself, as JSON.
func specify(name string, m method, t Terms) (*rounds.Spec, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(m)
	if err != nil {
		return nil, termError("dim", "%v", err)
	}
	schedule := m.schedule()
	s := &rounds.Spec{
		Job: t.Job, Method: name, Parameters: encoded,
		Adjacency: t.Adjacency, Trust: t.Trust,
		NMin: t.NMin, RoundSize: t.RoundSize, Deadline: t.Deadline.Milliseconds(),
		Delta: t.Delta,
	}
	if s.Budget, err = accounting.GaussianBudget(t.Epsilon, t.Delta); err != nil {
		return nil, termError("epsilon", "%v", err)
	}
	charges, err := s.Budget.Split(shares(schedule, t.Spare))
	if err != nil {
		return nil, termError("epsilon", "%v at delta %g: %v", t.Epsilon, t.Delta, err)
	}
	for i, phase := range schedule {
		r := rounds.Release{Kind: phase.kind, Length: phase.layout.Len(), Charge: charges[i]}
		// The widest lattice bounds what is below; the modulus is cut down last.
		if r.Bound, err = (dp.Lattice{ScaleBits: scaleBits, ModulusBits: 64}).Bound(phase.layout.Bound()); err != nil {
			return nil, termError("dim", "the release of %s: %v", phase.kind, err)
		}
		if r.Sigma, err = leastSigma(s, &r); err != nil {
			return nil, termError(blame(err), "no noise for epsilon %v over %d releases: %v", t.Epsilon, len(charges), err)
		}
		r.Largest = largest(s, &r)
		s.Releases = append(s.Releases, r)
	}
	for bits := uint(8); ; bits += 8 {
		s.Lattice = dp.Lattice{ScaleBits: scaleBits, ModulusBits: bits}
		if err = holds(s); err == nil {
			break
		}
		if bits == 64 {
			return nil, termError(sizeFlag(&t), "%v", err)
		}
	}
	written := Encode(s)
	if len(written) > rounds.MaxSpec {
		return nil, termError("rounds", "%d releases make a specification of %d bytes; at most %d", len(schedule), len(written), rounds.MaxSpec)
	}
	if _, err := rounds.ParseSpec(written); err != nil {
		var field *rounds.SpecError
		errors.As(err, &field)
		return nil, termError(flagOf(field.Field), "%s", field.Problem)
	}
	return s, nil
}

// flags that hold what a specification's fields are made of.
var flags = map[string]string{
	"job": "job", "adjacency": "adjacency", "trust": "trust",
	"n_min": "n-min", "round_size": "round-size", "deadline_ms": "deadline",
	"delta": "delta", "budget_nano_rho": "epsilon", "lattice": "round-size",
	"releases": "rounds", "sigma": "epsilon", "largest": "epsilon", "charge_nano_rho": "epsilon",
}

// flagOf names the flag behind a field, or behind the last part of its path. The
// rest follows from what is learned.
func flagOf(field string) string {
	if flag := flags[field[strings.LastIndexByte(field, '.')+1:]]; flag != "" {
		return flag
	}
	return "dim"
}

// sizeFlag is the flag behind what is too much for one round: a round's size may
// have been left to n-min.
func sizeFlag(t *Terms) string {
	if t.RoundSize == t.NMin {
		return "n-min"
	}
	return "round-size"
}

// Encode writes a specification that New made as a job is to have it.
func Encode(s *rounds.Spec) []byte {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // finite numbers and valid JSON only
	}
	return b
}

func (t *Terms) validate() error {
	switch {
	case !(t.Epsilon > 0) || math.IsInf(t.Epsilon, 0):
		return termError("epsilon", "%v is not a positive, finite number: a job without privacy is none for this service", t.Epsilon)
	case !(t.Delta > 0 && t.Delta < 1):
		return termError("delta", "%v is not between 0 and 1", t.Delta)
	case t.NMin < 1:
		return termError("n-min", "%d is less than 1", t.NMin)
	case t.NMin > rounds.MaxRoundSize:
		return termError("n-min", "%d is more than %d", t.NMin, rounds.MaxRoundSize)
	case t.RoundSize > rounds.MaxRoundSize:
		return termError("round-size", "%d is more than %d", t.RoundSize, rounds.MaxRoundSize)
	case t.RoundSize < t.NMin:
		return termError("round-size", "%d is less than n-min, %d", t.RoundSize, t.NMin)
	case t.Deadline < time.Millisecond:
		return termError("deadline", "%v is less than a millisecond", t.Deadline)
	case t.Deadline > rounds.MaxDeadline:
		return termError("deadline", "%v is more than %v", t.Deadline, rounds.MaxDeadline)
	case t.Spare < 0:
		return termError("spare", "%d is negative", t.Spare)
	}
	return nil
}

// shares of the budget, one a release; what they leave pays for the spare
// attempts.
func shares(schedule []phase, spare int) []float64 {
	var out []float64
	total, dearest := 0.0, 0.0
	for _, phase := range schedule {
		out = append(out, phase.share)
		total += phase.share
		dearest = max(dearest, phase.share)
	}
	if spare > 0 {
		for i := range out {
			out[i] /= total + float64(spare)*dearest
		}
	}
	return out
}

// parts is how many contributions' noise makes up what is charged.
func parts(s *rounds.Spec) int {
	if s.Trust == rounds.TrustLocal {
		return 1
	}
	return s.NMin
}

// leastSigma is the least noise of one contribution that the release's charge
// pays for, or an error if there is none.
func leastSigma(s *rounds.Spec, r *rounds.Release) (noise.Sigma, error) {
	z, err := r.Charge.NoiseMultiplier() // over the sensitivity under the adjacency
	if err != nil {
		return 0, err
	}
	z *= s.Adjacency.SensitivityFactor() * math.Sqrt(1+1.0/margin)
	total, err := noise.SigmaAtLeast(z * float64(r.Bound))
	if err != nil {
		return 0, err
	}
	sigma := total
	if n := parts(s); n > 1 {
		if sigma, _, err = noise.Share(total, n); err != nil {
			return 0, err
		}
	}
	r.Sigma = sigma
	for !pays(s, r) { // floats above: up to the last unit
		r.Sigma++
	}
	return r.Sigma, addUp(s, r)
}

// margin is the part of a release's cost that its charge covers on top: one in so
// many. It is what a sum of shares may cost more than one discrete Gaussian.
const margin = 100_000_000_000

// addUp returns nil if a sum of so many shares is as good as one discrete
// Gaussian: if what the distance adds to sqrt(2 rho) is at most 10^-12 of it. Then
// rho is larger by 2 10^-12 and a little, a fifth of the margin; the rest is far
// more than the floats here can be off.
func addUp(s *rounds.Spec, r *rounds.Release) error {
	n := parts(s)
	if n == 1 {
		return nil
	}
	total := math.Sqrt(float64(n)) * r.Sigma.Float64()
	_, closeness, err := noise.Share(noise.Sigma(math.Ceil(math.Ldexp(total, 20))), n)
	if err != nil {
		return err
	}
	if slack := closeness * math.Sqrt(float64(r.Length)); slack > 1e-12*float64(r.Bound)/total {
		return fmt.Errorf("shares of %v lattice units add up to no discrete Gaussian", r.Sigma.Float64())
	}
	return nil
}

// pays reports whether the charge covers the release: whether
//
//	Charge 10^-9 >= (1 + 1/margin) factor^2 Bound^2 / (2 n (Sigma 2^-20)^2),
//
// in integers.
func pays(s *rounds.Spec, r *rounds.Release) bool {
	integer := func(factors ...uint64) *big.Int {
		out := big.NewInt(1)
		for _, f := range factors {
			out.Mul(out, new(big.Int).SetUint64(f))
		}
		return out
	}
	factor := uint64(s.Adjacency.SensitivityFactor())
	paid := integer(uint64(r.Charge), 2, uint64(parts(s)), uint64(r.Sigma), uint64(r.Sigma), margin)
	cost := integer(factor, factor, r.Bound, r.Bound, 1e9, 1<<40, margin+1)
	return paid.Cmp(cost) >= 0
}

// largest is the largest coordinate of an honest contribution as it is sent.
func largest(s *rounds.Spec, r *rounds.Release) uint64 {
	if s.Trust == rounds.TrustCentral {
		return r.Bound
	}
	return r.Bound + uint64(r.Sigma)>>20*tailDeviations + tailDeviations
}

// holds returns nil if the lattice has room for the sum of a full round, and
// so for everything in it.
func holds(s *rounds.Spec) error {
	for i := range s.Releases {
		r := &s.Releases[i]
		bound := math.Ldexp(float64(r.Bound), -int(s.Lattice.ScaleBits))
		deviation := r.Sigma.Float64() * math.Sqrt(float64(s.RoundSize))
		if err := s.Lattice.Capacity(s.RoundSize, bound, deviation); err != nil {
			return err
		}
		if r.Largest >= 1<<(s.Lattice.ModulusBits-1) {
			return fmt.Errorf("a coordinate of %d does not fit %d bits", r.Largest, s.Lattice.ModulusBits)
		}
	}
	return nil
}

// blame names the flag behind an error of leastSigma.
func blame(err error) string {
	var share *noise.ShareError
	if errors.As(err, &share) {
		return "n-min"
	}
	return "epsilon"
}

// Check recomputes what a specification of AMHT-LRS claims - lengths,
// sensitivities, noise, charges, budget - from its parameters, and returns the
// parameters. It is what a client does before it takes part. Fails with a
// *rounds.SpecError.
func Check(s *rounds.Spec) (*Parameters, error) {
	p, err := parameters(s)
	if err != nil {
		return nil, err
	}
	if err := check(s, p); err != nil {
		return nil, err
	}
	return p, nil
}

// CheckAny is Check for a job of any method: what a server does before it creates
// the job, and an auditor afterwards.
func CheckAny(s *rounds.Spec) error {
	m, err := methodOf(s)
	if err != nil {
		return err
	}
	return check(s, m)
}

func check(s *rounds.Spec, m method) error {
	wrong := func(i int, field, format string, args ...any) error {
		return &rounds.SpecError{Field: fmt.Sprintf("releases[%d].%s", i, field), Problem: fmt.Sprintf(format, args...)}
	}
	schedule := m.schedule()
	if len(s.Releases) != len(schedule) {
		return &rounds.SpecError{Field: "releases", Problem: fmt.Sprintf("there are %d, the schedule has %d", len(s.Releases), len(schedule))}
	}
	var all accounting.Filter
	all.Budget = s.Budget
	for i, phase := range schedule {
		r := &s.Releases[i]
		bound, err := s.Lattice.Bound(phase.layout.Bound())
		switch {
		case err != nil:
			return &rounds.SpecError{Field: "lattice", Problem: err.Error()}
		case r.Kind != phase.kind:
			return wrong(i, "kind", "%q, the schedule has %q", r.Kind, phase.kind)
		case r.Length != phase.layout.Len():
			return wrong(i, "length", "%d, the layout has %d", r.Length, phase.layout.Len())
		case r.Bound != bound:
			return wrong(i, "bound", "%d, the layout's is %d", r.Bound, bound)
		case r.Sigma < noise.MinSigma || r.Sigma > noise.MaxSigma:
			return wrong(i, "sigma", "%d is out of range", r.Sigma)
		case !pays(s, r):
			return wrong(i, "charge_nano_rho", "%d does not pay for a release with this noise", uint64(r.Charge))
		case r.Largest != largest(s, r):
			return wrong(i, "largest", "%d, for this noise it is %d", r.Largest, largest(s, r))
		}
		if err := addUp(s, r); err != nil {
			return wrong(i, "sigma", "%v", err)
		}
		if err := all.Reserve(r.Charge); err != nil {
			return &rounds.SpecError{Field: "budget_nano_rho", Problem: fmt.Sprintf("%d does not pay for all rounds", uint64(s.Budget))}
		}
	}
	if err := holds(s); err != nil {
		return &rounds.SpecError{Field: "lattice", Problem: err.Error()}
	}
	return nil
}
