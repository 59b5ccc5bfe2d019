package report

import (
	"math"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// pricing says what an amount of rho is in other units.
type pricing struct {
	terms
	known map[accounting.NanoRho]Privacy
}

// terms are what that depends on.
type terms struct {
	delta float64
	// replace is what the same release costs under replace-one, over what it costs under
	// the adjacency that amounts are of.
	replace  float64
	gaussian bool // see gaussian
}

// prices of jobs, which are much alike.
type prices map[terms]*pricing

func (p prices) pricing(s *ledger.Specification) *pricing {
	t := terms{delta: s.Delta, replace: 4, gaussian: gaussian(s)}
	if s.Adjacency == dp.ReplaceOne {
		t.replace = 1
	}
	if p[t] == nil {
		p[t] = newPricing(t)
	}
	return p[t]
}

func newPricing(t terms) *pricing { return &pricing{t, make(map[accounting.NanoRho]Privacy)} }

func (p *pricing) of(amount accounting.NanoRho) Privacy {
	if known, ok := p.known[amount]; ok {
		return known
	}
	rho := amount.Rho()
	out := Privacy{NanoRho: uint64(amount), Rho: rho, Epsilon: p.epsilon(rho), ReplaceOne: p.epsilon(rho * p.replace)}
	if p.gaussian {
		out.Mu = mu(rho)
	}
	p.known[amount] = out
	return out
}

// epsilon of rho, rounded up.
func (p *pricing) epsilon(rho float64) float64 {
	switch nano := math.Ceil(rho * 1e9); {
	case p.gaussian:
		return accounting.GaussianEpsilon(mu(rho), p.delta)
	case nano < 1<<63:
		epsilon, err := accounting.NanoRho(nano).Epsilon(p.delta)
		if err == nil {
			return epsilon
		}
	}
	// Bun, Steinke 2016, proposition 1.3. It is as good as any at such a rho.
	return rho + 2*math.Sqrt(-rho*math.Log(p.delta))
}

// mu of Gaussian releases that cost rho, rounded up.
func mu(rho float64) float64 { return math.Sqrt(2*rho) * (1 + 1e-12) }

// gaussian reports whether each of a job's releases is at least as private as a Gaussian
// of its charge: then sqrt(2 rho) is their mu in Gaussian DP. A discrete Gaussian of
// sigma is as private as a Gaussian of variance sigma^2 - 4 (accounting.DiscreteGaussian),
// and so is a sum of them if each is of 2 lattice units at least.
func gaussian(s *ledger.Specification) bool {
	for i := range s.Releases {
		r := &s.Releases[i]
		local := math.Ldexp(float64(r.Sigma), -20)
		variance := float64(s.Parts())*local*local - 4
		bound := s.Adjacency.SensitivityFactor() * float64(r.Bound)
		if isCoarse(r.Sigma, s.Parts()) || bound*bound/(2*variance) > r.Charge.Rho()*(1+1e-12) {
			return false
		}
	}
	return true
}

// isCoarse reports whether noise of so many parts, each of sigma in 2^-20 lattice units, is
// of too few units to be as private as a Gaussian.
func isCoarse(sigma uint64, parts int) bool {
	local := math.Ldexp(float64(sigma), -20)
	return local < 2 || parts == 1 && local == 2
}

// coarse is isCoarse of a job's mechanism.
func coarse(j *ledger.Job, m *ledger.Mechanism) bool {
	return isCoarse(m.Sigma, j.Specification.Parts())
}

// sum of what jobs spent, under zero-out.
type sum struct {
	nano   accounting.NanoRho
	delta  float64
	coarse bool // some job is not Gaussian
}

// add a job. What costs rho under replace-one costs a quarter under zero-out.
func (s *sum) add(j *ledger.Job) {
	spent := j.Spent
	if j.Specification.Adjacency == dp.ReplaceOne {
		spent = spent/4 + min(1, spent%4)
	}
	all, err := s.nano.Add(spent)
	if err != nil {
		all = math.MaxUint64 // or more
	}
	s.nano = all
	s.coarse = s.coarse || !gaussian(&j.Specification)
	if s.delta == 0 || j.Specification.Delta < s.delta {
		s.delta = j.Specification.Delta
	}
}

func (s *sum) together() Together {
	if s.delta == 0 {
		return Together{}
	}
	p := newPricing(terms{delta: s.delta, replace: 4, gaussian: !s.coarse})
	return Together{Delta: s.delta, Privacy: p.of(s.nano)}
}
