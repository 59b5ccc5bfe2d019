package simulations

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/simulations/population"
)

// Membership is an end-to-end measurement of epsilon: can one tell from all that a
// job releases, U_0 to U_L, whether one user took part?
//
// # The attack
//
// A job is simulated many times over the same users, each time with fresh noise, and
// each time a fair coin says whether the target's contributions are the target's own
// or zeros: the two worlds of zero-out adjacency, and neighbours under replace-one as
// well. The attack knows the target's samples and everybody else's, and so can compute
// what the target would have sent from the states that were released; what it looks for
// in each release is
//
//	f_0 = <U_0 U_0^T, M>,    f_l = -<U_l - U_(l-1), G_l>,
//
// the initialisation's agreement with the target's moments M, and the update's with
// the target's gradient G_l at U_(l-1). Half of the runs fix Fisher's linear
// discriminant of f_0 to f_L and its threshold; the other half are guessed with it, and
// bound epsilon as at accounting.Guesses.
//
// It is a lower bound on what the releases give away, and far from the claim: U is less
// than the sums that it is computed from, which is what the claim is about.
type Membership struct {
	Epsilon   Epsilon // claimed, of the whole job; inf is no noise at all
	Delta     float64
	Adjacency string
	Trust     string
	Clients   int
	Rounds    int // of updates
	Runs      int // half of them to learn from
	// Confidence of the bound, and FalseAlarm of the verdict.
	Confidence, FalseAlarm float64
	Seed                   uint64
	Progress               func(Progress) // in runs
}

// MembershipResult is what it measured.
type MembershipResult struct {
	Date           time.Time `json:"date"`
	ClaimedEpsilon Epsilon   `json:"claimed_epsilon"`
	LowerBound     float64   `json:"lower_bound_epsilon"`
	Estimate       float64   `json:"estimate_epsilon,omitempty"` // 0 where all guesses were right, too
	Delta          float64   `json:"delta"`
	Adjacency      string    `json:"adjacency"`
	Trust          string    `json:"trust"`
	Clients        int       `json:"clients"`
	Releases       int       `json:"releases"`
	Confidence     float64   `json:"confidence"`
	FalseAlarm     float64   `json:"false_alarm_rate"`
	Trials         int       `json:"trials"`
	Correct        int       `json:"correct"`
	PValue         float64   `json:"p_value"` // of the claim
	Seed           uint64    `json:"seed"`
	Passed         bool      `json:"passed"`
}

// The users: few features and a rank of 1, which U_l follows most closely.
var membershipUsers = population.Synthetic{Dim: 6, Rank: 1, Samples: 20, LabelNoise: 0.5}

const (
	leastMembershipRuns = 40
	mostMembershipRuns  = 1_000_000
	leastMembers        = 10
)

// target is the user whose part is guessed.
const target = 0

// MeasureMembership performs the measurement. A mistake in m is a *FieldError.
func MeasureMembership(ctx context.Context, m Membership) (*MembershipResult, error) {
	u, err := m.unit()
	if err != nil {
		return nil, err
	}
	in, features, err := m.observe(ctx, u)
	if err != nil {
		return nil, err
	}
	half := m.Runs / 2
	rule, err := discriminant(in[:half], features[:half])
	if err != nil {
		return nil, err
	}
	g := accounting.Guesses{Trials: m.Runs - half}
	for i := half; i < m.Runs; i++ {
		if rule(features[i]) == in[i] {
			g.Correct++
		}
	}
	low, _ := g.Mu(1 - m.Confidence)
	r := &MembershipResult{
		Date: time.Now().UTC().Truncate(time.Second), ClaimedEpsilon: m.Epsilon, Delta: m.Delta,
		LowerBound: accounting.GaussianEpsilon(low, m.Delta),
		Adjacency:  m.Adjacency, Trust: m.Trust, Clients: m.Clients, Releases: len(features[0]),
		Confidence: m.Confidence, FalseAlarm: m.FalseAlarm,
		Trials: g.Trials, Correct: g.Correct, PValue: 1, Seed: m.Seed,
	}
	if g.Correct < g.Trials {
		r.Estimate = accounting.GaussianEpsilon(g.Estimate(), m.Delta)
	}
	if m.Epsilon.Private() {
		mu, err := accounting.GaussianMu(float64(m.Epsilon), m.Delta)
		if err != nil {
			return nil, err
		}
		r.PValue = g.PValue(mu)
	}
	r.Passed = r.PValue >= m.FalseAlarm
	return r, nil
}

// unit is the job that is simulated, without a seed.
func (m *Membership) unit() (*unit, error) {
	switch {
	case m.Clients < leastMembers:
		return nil, &FieldError{"clients", fmt.Sprintf("%d is less than %d", m.Clients, leastMembers)}
	case m.Runs < leastMembershipRuns || m.Runs > mostMembershipRuns:
		return nil, &FieldError{"runs", fmt.Sprintf("%d is not from %d to %d", m.Runs, leastMembershipRuns, mostMembershipRuns)}
	case m.Rounds < 1:
		return nil, &FieldError{"rounds", fmt.Sprintf("%d is less than 1", m.Rounds)}
	case !(m.Confidence >= 0.5 && m.Confidence < 1):
		return nil, &FieldError{"confidence", fmt.Sprintf("%v is not from 0.5 to 1", m.Confidence)}
	case !(m.FalseAlarm > 0 && m.FalseAlarm < 0.5):
		return nil, &FieldError{"false-alarm", fmt.Sprintf("%v is not between 0 and 0.5", m.FalseAlarm)}
	}
	users := membershipUsers
	users.Clients = m.Clients
	cfg := &Config{
		Synthetic: &users, Methods: []string{AMHTLRS}, Rank: users.Rank, Rounds: m.Rounds,
		Epsilons: []Epsilon{m.Epsilon}, Delta: m.Delta, Adjacency: m.Adjacency, Trust: m.Trust,
		Update: "gradient", Solver: "pursuit", Seed: m.Seed, Seeds: 1,
	}
	if err := cfg.Validate(m.Clients); err != nil {
		return nil, err
	}
	pop, err := population.NewSynthetic(users, m.Seed)
	if err != nil {
		return nil, err
	}
	plan, err := schedule(cfg, AMHTLRS, m.Epsilon, users.Dim, m.Clients)
	if err != nil {
		return nil, err
	}
	return &unit{cfg: cfg, pop: pop, method: AMHTLRS, epsilon: m.Epsilon, plan: plan}, nil
}

// observe runs the job again and again: whether the target took part, and what the
// attack sees.
func (m *Membership) observe(ctx context.Context, u *unit) (in []bool, features [][]float64, err error) {
	in, features = make([]bool, m.Runs), make([][]float64, m.Runs)
	const batch = 64
	for first := 0; first < m.Runs; first += batch {
		last := min(first+batch, m.Runs)
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(runtime.GOMAXPROCS(0))
		for i := first; i < last; i++ {
			group.Go(func() error {
				run := *u
				run.seed = m.Seed + uint64(i)
				run.cohort = &cohort{workers: 1}
				in[i] = noise.NewSeeded(m.Seed, uint64(i)).Uint64()>>63 == 1
				run.pop = membership{u.pop, in[i]}
				var err error
				features[i], err = look(inner, &run, u.pop)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, nil, err
		}
		if m.Progress != nil {
			m.Progress(Progress{Done: int64(last), Total: int64(m.Runs), Stage: "runs"})
		}
	}
	return in, features, nil
}

// membership is a population in which the target has samples, or contributes zeros.
type membership struct {
	population.Population
	in bool
}

func (p membership) Train(i int, dst *population.Samples) {
	p.Population.Train(i, dst)
	if i == target && !p.in {
		dst.X, dst.Y = dst.X[:0], dst.Y[:0]
	}
}

// look runs a job, and returns how much every release agrees with what the target
// would have sent.
func look(ctx context.Context, u *unit, whole population.Population) ([]float64, error) {
	var samples population.Samples
	whole.Train(target, &samples)
	var c local.Contributor
	u.plan.equip(&c.Solver)
	var features []float64
	before := u.plan.Start()
	_, err := u.run(ctx, nil, func(p progressState) error {
		phase, _ := before.Phase()
		layout := u.plan.Layout(phase.Kind)
		own := make([]float64, layout.Len())
		if err := c.Contribute(own, before, samples); err != nil {
			return err
		}
		features = append(features, agreement(phase.Kind, before, p.State, layout.Part(lowrank.PartMain, own)))
		before = p.State
		return nil
	})
	return features, err
}

// agreement is f_l: of the state that a release led to, from the one before, with the
// main part of the target's contribution.
func agreement(kind lowrank.Kind, before, after *lowrank.State, own []float64) float64 {
	u, d := after.Basis, after.Config.Dim
	if kind != lowrank.Initialise {
		step := slices.Clone(u)
		floats.Sub(step, before.Basis)
		return -floats.Dot(step, own[:len(step)])
	}
	// The triangle of a symmetric matrix, off-diagonal entries times sqrt(2).
	sum, at := 0.0, 0
	for i := range d {
		for j := i; j < d; j++ {
			var entry float64
			for c := 0; c < len(u); c += d {
				entry += u[c+i] * u[c+j]
			}
			if i != j {
				entry *= math.Sqrt2
			}
			sum += entry * own[at]
			at++
		}
	}
	return sum
}

// discriminant is Fisher's: w = S^-1 (mean_in - mean_out), S the covariance within, and
// the threshold half-way between the means.
func discriminant(in []bool, features [][]float64) (func([]float64) bool, error) {
	n := len(features[0])
	sums := map[bool][]float64{true: make([]float64, n), false: make([]float64, n)}
	count := map[bool]float64{}
	for i, f := range features {
		floats.Add(sums[in[i]], f)
		count[in[i]]++
	}
	for side, sum := range sums {
		floats.Scale(1/max(count[side], 1), sum)
	}
	within := mat.NewDense(len(features), n, nil)
	for i, f := range features {
		floats.SubTo(within.RawRowView(i), f, sums[in[i]])
	}
	var s mat.SymDense
	stat.CovarianceMatrix(&s, within, nil)
	// What does not vary at all (there is no noise) is as good as a hair's breadth.
	for i := range n {
		s.SetSym(i, i, s.At(i, i)*(1+1e-9)+1e-30)
	}
	apart := mat.NewVecDense(n, nil)
	apart.SubVec(mat.NewVecDense(n, sums[true]), mat.NewVecDense(n, sums[false]))
	var w mat.VecDense
	if err := w.SolveVec(&s, apart); err != nil {
		return nil, fmt.Errorf("simulations: no discriminant of the runs: %w", err)
	}
	middle := (mat.Dot(&w, mat.NewVecDense(n, sums[true])) + mat.Dot(&w, mat.NewVecDense(n, sums[false]))) / 2
	return func(f []float64) bool { return mat.Dot(&w, mat.NewVecDense(n, f)) > middle }, nil
}
