package simulations

import (
	"errors"
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// The lattice of every simulated round: contributions have norm about 1, so
// 2^-24 is far below any noise, and sums of millions of them fit.
var lattice = dp.Lattice{ScaleBits: 24, ModulusBits: 62}

// sketchOversampling is the usual number of columns beyond the rank (Halko,
// Martinsson, Tropp 2011, section 4.2).
const sketchOversampling = 5

const (
	// privateRounds is the number of updates that the schedule makes under a
	// budget: each one needs its share.
	privateRounds = 6
	// freeRounds is the most it makes without: it ends earlier once the shared
	// part moves by less than converged.
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
	config   lowrank.Config
	sparsity int
	hard     bool // b by the paper's thresholds
	shares   []release
}

// equip sets a solver to the plan.
func (p *plan) equip(s *local.Solver) { s.Sparsity, s.HardThreshold = p.sparsity, p.hard }

// release is what one phase of the schedule pays.
type release struct {
	charge     accounting.NanoRho
	multiplier float64 // noise over sensitivity; 0 without privacy
}

// schedule makes the plan of a method, or a *FieldError if the budget or the
// lattice has no room for it.
func schedule(cfg *Config, method string, epsilon Epsilon, dim, clients int) (*plan, error) {
	p := &plan{sparsity: cfg.Sparsity, hard: cfg.Solver == "hard-threshold"}
	p.config = lowrank.Config{
		Dim: dim, Rank: cfg.Rank, Rounds: cfg.Rounds, Update: lowrank.Update(cfg.Update),
		Features: lowrank.Standard,
	}
	switch {
	case cfg.Data != nil && cfg.Data.Format == "ratings":
		p.config.Features, p.config.Centred = lowrank.OneHot, true
	case cfg.Data != nil:
		p.config.Features, p.config.Centred = lowrank.Unscaled, true
	case cfg.Synthetic.Correlation != 0:
		p.config.Features = lowrank.Unscaled
	}
	switch method {
	case LowRank:
		p.sparsity = 0
	case Global:
		p.sparsity, p.config.Rank, p.config.Centred = 0, 0, true
		p.config.Update = lowrank.Gradient
	}
	if cfg.Rounds == 0 {
		p.config.Rounds = freeRounds
		if p.config.Centred {
			p.config.Rounds = centredRounds
		}
		if epsilon.Private() {
			p.config.Rounds = privateRounds
		}
	}
	if dim > lowrank.LargestMoment {
		p.config.Sketch = min(dim, 2*cfg.Rank+sketchOversampling)
	}
	if n := p.config.Layout(lowrank.Refine).Len(); n > maxCoordinates {
		return nil, &FieldError{"update", fmt.Sprintf("%s sends %d numbers a user for %d features and rank %d; at most %d", cfg.Update, n, dim, cfg.Rank, maxCoordinates)}
	}
	phases := p.config.Phases()
	p.shares = make([]release, len(phases))
	if !epsilon.Private() {
		return p, nil
	}
	adjacency, err := dp.ParseAdjacency(cfg.Adjacency)
	if err != nil {
		return nil, &FieldError{"adjacency", err.Error()}
	}
	budget, err := accounting.GaussianBudget(float64(epsilon), cfg.Delta)
	if err != nil {
		return nil, &FieldError{"epsilon", err.Error()}
	}
	shares := make([]float64, len(phases))
	for i, phase := range phases {
		shares[i] = phase.Share
	}
	charges, err := budget.Split(shares)
	if err != nil {
		return nil, &FieldError{"epsilon", fmt.Sprintf("%v at delta %g: %v", epsilon, cfg.Delta, err)}
	}
	for i, c := range charges {
		z, err := c.NoiseMultiplier() // over the sensitivity under the adjacency
		if err != nil {
			return nil, &FieldError{"epsilon", err.Error()}
		}
		z *= adjacency.SensitivityFactor()
		p.shares[i] = release{c, z}
		if _, err := p.share(cfg, phases[i].Kind, z, clients); err != nil {
			return nil, &FieldError{blame(err), fmt.Sprintf("no noise for epsilon %v over %d releases: %v", epsilon, len(phases), err)}
		}
	}
	return p, nil
}

// blame names the flag behind an error of share.
func blame(err error) string {
	var share *noise.ShareError
	var capacity *dp.CapacityError
	switch {
	case errors.As(err, &share):
		return "n-min"
	case errors.As(err, &capacity):
		return "clients"
	}
	return "epsilon"
}

// maxCoordinates bounds one contribution: 256 MiB of integers.
const maxCoordinates = 1 << 25

// share returns the noise that each of the clients adds, in lattice units,
// for a release of the given noise multiplier.
func (p *plan) share(cfg *Config, kind lowrank.Kind, multiplier float64, clients int) (noise.Sigma, error) {
	bound := p.config.Layout(kind).Bound()
	sensitivity, err := lattice.Bound(bound)
	if err != nil {
		return 0, err
	}
	total, err := noise.SigmaAtLeast(multiplier * float64(sensitivity))
	if err != nil {
		return 0, err
	}
	local, parts := total, 1
	if cfg.Trust != "local" {
		// n_min shares carry the whole variance; in central trust the server
		// adds each one when the update arrives, which is the same sum.
		parts = cfg.nMin(clients)
		var closeness float64
		if local, closeness, err = noise.Share(total, parts); err != nil {
			return 0, err
		}
		// The charge is that of one discrete Gaussian. A sum of shares is as
		// good up to closeness sqrt(d) in sqrt(2 rho), which has to vanish
		// beside what rounding up the charge has left.
		if slack := closeness * math.Sqrt(float64(p.config.Layout(kind).Len())); slack > 1e-12/multiplier {
			return 0, fmt.Errorf("shares of %v lattice units add up to no discrete Gaussian", local.Float64())
		}
	}
	return local, lattice.Capacity(clients, bound, local.Float64()*math.Sqrt(float64(clients)))
}

func (c *Config) nMin(clients int) int {
	if c.NMin == 0 {
		return clients
	}
	return c.NMin
}
