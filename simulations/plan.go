package simulations

import (
	"errors"
	"math"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// lattice of every simulated round, with the spacing of a job's and more room:
// a sum that fits a job's modulus is the same under both.
var lattice = dp.Lattice{ScaleBits: 24, ModulusBits: 62}

const (
	// freeRounds is the most updates that the schedule makes without a budget: it
	// ends earlier once the shared part moves by less than converged.
	freeRounds = 30
	converged  = 1e-5
	// centredRounds takes its place for centred methods, whose prior makes
	// every round one of EM: it goes on fitting U to the users at hand long
	// after what holds for others has been found.
	centredRounds = 10
)

// plan is what a unit's releases are, and cost; public, and fixed before the
// first client computes.
type plan struct {
	jobs.Parameters
	spec *rounds.Spec // nil without privacy
}

// equip sets a solver to the plan.
func (p *plan) equip(s *local.Solver) { s.Sparsity, s.HardThreshold = p.Sparsity, p.HardThreshold }

// charge of the release that a state waits for, and its noise over the
// sensitivity; 0 without privacy.
func (p *plan) charge(step int) (rho accounting.NanoRho, multiplier float64) {
	if p.spec == nil {
		return 0, 0
	}
	r := p.spec.Releases[step]
	parts := p.spec.NMin
	if p.spec.Trust == rounds.TrustLocal {
		parts = 1
	}
	return r.Charge, r.Sigma.Float64() * math.Sqrt(float64(parts)) / float64(r.Bound)
}

// schedule makes the plan of a method, or a *FieldError if the budget or the
// lattice has no room for it.
func schedule(cfg *Config, method string, epsilon Epsilon, dim, clients int) (*plan, error) {
	p := &plan{Parameters: jobs.Parameters{
		Config: lowrank.Config{
			Dim: dim, Rank: cfg.Rank, Rounds: cfg.Rounds, Update: lowrank.Update(cfg.Update),
			Features: lowrank.Standard,
		},
		Sparsity: cfg.Sparsity, HardThreshold: cfg.Solver == "hard-threshold",
	}}
	switch {
	case cfg.Data != nil && cfg.Data.Format == "ratings":
		p.Features, p.Centred = lowrank.OneHot, true
	case cfg.Data != nil:
		p.Features, p.Centred = lowrank.Unscaled, true
	case cfg.Synthetic.Correlation != 0:
		p.Features = lowrank.Unscaled
	}
	switch method {
	case LowRank:
		p.Sparsity = 0
	case Global:
		p.Sparsity, p.Rank, p.Centred = 0, 0, true
		p.Update = lowrank.Gradient
	}
	if p.Rounds == 0 && !epsilon.Private() {
		p.Rounds = freeRounds
		if p.Centred {
			p.Rounds = centredRounds
		}
	}
	p.Parameters = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return nil, asFieldError(err)
	}
	if !epsilon.Private() {
		return p, nil
	}
	adjacency, err := dp.ParseAdjacency(cfg.Adjacency)
	if err != nil {
		return nil, &FieldError{"adjacency", err.Error()}
	}
	p.spec, err = jobs.New(p.Parameters, jobs.Terms{
		Job: "simulation", Epsilon: float64(epsilon), Delta: cfg.Delta, Adjacency: adjacency,
		Trust: rounds.Trust(cfg.Trust), NMin: cfg.nMin(clients), RoundSize: clients, Deadline: time.Hour,
	})
	if err != nil {
		return nil, asFieldError(err)
	}
	return p, nil
}

// asFieldError gives a job's term the name that its flag has here.
func asFieldError(err error) error {
	var term *jobs.TermError
	if !errors.As(err, &term) {
		return err
	}
	if term.Flag == "round-size" {
		return &FieldError{"clients", term.Problem}
	}
	return &FieldError{term.Flag, term.Problem}
}

func (c *Config) nMin(clients int) int {
	if c.NMin == 0 {
		return clients
	}
	return c.NMin
}
