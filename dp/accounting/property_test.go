package accounting_test

import (
	"errors"
	"flag"
	"math"
	"math/big"
	"testing"

	"github.com/undertone-fl/undertone/dp/accounting"
	"pgregory.net/rapid"
)

// The properties are checked on the same inputs in every run; -rapid.seed=0
// draws others.
func init() { must(0, flag.Set("rapid.seed", "1")) }

// Distributions of the properties' inputs.
var (
	noise  = logUniform(0.5, 50)
	deltas = logUniform(1e-9, 1e-2)
	counts = rapid.IntRange(1, 200)
	rates  = logUniform(1e-4, 0.9)
)

func logUniform(lo, hi float64) *rapid.Generator[float64] {
	return rapid.Map(rapid.Float64Range(math.Log(lo), math.Log(hi)), math.Exp)
}

func gaussians(z float64, n int) accounting.Event {
	return accounting.Repeated{Event: accounting.Gaussian{NoiseMultiplier: z}, Count: n}
}

// Epsilons of an event by each accountant.

func byGDP(e accounting.Event, delta float64) float64 {
	return accounting.GaussianEpsilon(must(accounting.GDP(e)), delta)
}

func byRDP(e accounting.Event, delta float64) float64 {
	epsilon, _, err := must(accounting.RDP(e)).Epsilon(delta)
	return must(epsilon, err)
}

func byPLD(e accounting.Event, delta float64) float64 {
	return must(must(accounting.NewPLD(e)).Epsilon(delta))
}

func TestAccountantsAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := gaussians(noise.Draw(t, "z"), counts.Draw(t, "n"))
		delta := deltas.Draw(t, "delta")
		rho := must(accounting.ZCDP(e))
		gdp, tight, simple := byGDP(e, delta), must(rho.Epsilon(delta)), must(rho.SimpleEpsilon(delta))
		rdp, pld := byRDP(e, delta), byPLD(e, delta)
		// Rho is rounded up to a nano-rho, RDP is not.
		if !(gdp <= rdp && gdp <= tight && tight <= rdp*(1+1e-5) && rdp <= simple) {
			t.Errorf("GDP %v, tight zCDP %v, RDP %v, simple zCDP %v", gdp, tight, rdp, simple)
		}
		// The PLD errs upwards, by little.
		if !(gdp <= pld && pld <= gdp*(1+1e-3)) {
			t.Errorf("GDP %v, PLD %v", gdp, pld)
		}
	})
}

func TestRepeatingIsComposing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		z, n := noise.Draw(t, "z"), rapid.IntRange(1, 12).Draw(t, "n")
		delta := deltas.Draw(t, "delta")
		repeated := gaussians(z, n)
		var composed, apart accounting.Composed
		for i := range n {
			composed = append(composed, accounting.Gaussian{NoiseMultiplier: z})
			// A hair apart, so that the PLD cannot count equal events.
			apart = append(apart, accounting.Gaussian{NoiseMultiplier: z * (1 + float64(i)*1e-15)})
		}
		if a, b := must(accounting.ZCDP(repeated)), must(accounting.ZCDP(composed)); a != b {
			t.Errorf("zCDP: %v repeated, %v composed", a, b)
		}
		near(t, "GDP", byGDP(composed, delta), byGDP(repeated, delta), 1e-11)
		near(t, "RDP", byRDP(composed, delta), byRDP(repeated, delta), 1e-11)
		near(t, "PLD", byPLD(apart, delta), byPLD(repeated, delta), 1e-5)
	})
}

func TestEpsilonIsMonotone(t *testing.T) {
	// Numerical noise is left a little room, the PLD's changing grid more.
	const exact, gridded = 1e-10, 1e-3
	rapid.Check(t, func(t *rapid.T) {
		z, n, delta := noise.Draw(t, "z"), counts.Draw(t, "n"), deltas.Draw(t, "delta")
		more := rapid.Float64Range(1, 3).Draw(t, "more")
		check := func(what string, make func(z float64, n int) accounting.Event,
			epsilon func(accounting.Event, float64) float64, room float64) {
			base := epsilon(make(z, n), delta) * (1 + room)
			if got := epsilon(make(z, n), delta*more); got > base {
				t.Errorf("%s: epsilon %v grew to %v with delta", what, base, got)
			}
			if got := epsilon(make(z*more, n), delta); got > base {
				t.Errorf("%s: epsilon %v grew to %v with noise", what, base, got)
			}
			if got := epsilon(make(z, n+1), delta) * (1 + room); got*(1+room) < base {
				t.Errorf("%s: epsilon %v fell to %v with a release", what, base, got)
			}
		}
		q := rates.Draw(t, "q")
		amplified := func(z float64, n int) accounting.Event { return sampled(q, z, n) }
		check("GDP", gaussians, byGDP, exact)
		check("RDP", gaussians, byRDP, exact)
		check("zCDP", gaussians, func(e accounting.Event, delta float64) float64 {
			return must(must(accounting.ZCDP(e)).Epsilon(delta))
		}, exact)
		check("sampled RDP", amplified, byRDP, exact)
		if rapid.IntRange(0, 9).Draw(t, "slow") == 0 {
			check("PLD", amplified, byPLD, gridded)
		}
	})
}

// Sampling only amplifies, and no accountant undercuts the tightest.
func TestSampledOrder(t *testing.T) {
	for _, c := range []struct {
		q, z float64
		n    int
	}{{0.001, 0.6, 500}, {0.01, 1, 100}, {0.1, 2, 100}, {0.5, 5, 30}, {0.99, 3, 10}} {
		const delta = 1e-6
		e := sampled(c.q, c.z, c.n)
		pld, rdp, full := byPLD(e, delta), byRDP(e, delta), byGDP(gaussians(c.z, c.n), delta)
		if !(pld < rdp && pld < full) {
			t.Errorf("%v: PLD %v, RDP %v, unsampled %v", e, pld, rdp, full)
		}
	}
}

func TestRoundsTowardsMoreEpsilon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		z := logUniform(1e-3, 1e8).Draw(t, "z")
		factor := rapid.SampledFrom([]float64{1, 2, math.Sqrt2}).Draw(t, "factor")
		charge := must(accounting.GaussianCharge(z, factor))
		// (charge-1) 2z^2 < 10^9 factor^2 <= charge 2z^2, over the rationals.
		square := func(v float64) *big.Rat {
			r := new(big.Rat).SetFloat64(v)
			return r.Mul(r, r)
		}
		scale := new(big.Rat).Mul(big.NewRat(2, 1), square(z))
		want := new(big.Rat).Mul(big.NewRat(1e9, 1), square(factor))
		at := func(c accounting.NanoRho) *big.Rat {
			return new(big.Rat).Mul(scale, new(big.Rat).SetInt(new(big.Int).SetUint64(uint64(c))))
		}
		if at(charge).Cmp(want) < 0 || at(charge-1).Cmp(want) >= 0 {
			t.Errorf("noise multiplier %v, factor %v: charge %v", z, factor, charge)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		mu, delta := logUniform(1e-6, 100).Draw(t, "mu"), logUniform(1e-15, 0.5).Draw(t, "delta")
		epsilon := accounting.GaussianEpsilon(mu, delta)
		if got := accounting.GaussianDelta(mu, epsilon); got > delta*(1+1e-11) {
			t.Errorf("mu %v, delta %v: epsilon %v has delta %v", mu, delta, epsilon, got)
		}
		if epsilon == 0 {
			return
		}
		if got := must(accounting.GaussianMu(epsilon, delta)); !(math.Abs(got-mu) <= 1e-9*mu) {
			t.Errorf("delta %v: mu %v comes back from epsilon %v as %v", delta, mu, epsilon, got)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		epsilon, delta := logUniform(0.05, 20).Draw(t, "epsilon"), deltas.Draw(t, "delta")
		n := rapid.IntRange(1, 2000).Draw(t, "n")
		z := must(accounting.CalibrateGaussian(epsilon, delta, n))
		near(t, "calibrated", byGDP(gaussians(z, n), delta), epsilon, 1e-9)
		budget := must(accounting.GaussianBudget(epsilon, delta))
		if got := must(budget.GaussianEpsilon(delta)); got > epsilon {
			t.Errorf("epsilon %v: the budget %v costs %v", epsilon, budget, got)
		}
		z = must((budget / accounting.NanoRho(n)).NoiseMultiplier())
		if spent := must(accounting.ZCDP(gaussians(z, n))); spent > budget {
			t.Errorf("%d rounds at %v cost %v of %v", n, z, spent, budget)
		}
	})
}

func TestFilterNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		budget := rapid.Uint64().Draw(t, "budget")
		f := accounting.Filter{Budget: accounting.NanoRho(budget)}
		sum := new(big.Int) // unbounded, so that an overflow would show
		for range rapid.IntRange(1, 50).Draw(t, "charges") {
			charge := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, budget), rapid.Just(budget/7)).Draw(t, "charge")
			after := new(big.Int).Add(sum, new(big.Int).SetUint64(charge))
			fits := after.Cmp(new(big.Int).SetUint64(budget)) <= 0
			before := f
			err := f.Reserve(accounting.NanoRho(charge))
			if fits {
				sum = after
			} else {
				var refused *accounting.BudgetError
				if !errors.As(err, &refused) || !errors.Is(err, accounting.ErrBudgetExceeded) ||
					*refused != (accounting.BudgetError{Budget: f.Budget, Spent: f.Spent(), Charge: accounting.NanoRho(charge)}) {
					t.Fatalf("refused with %v", err)
				}
				if f != before {
					t.Fatal("a refused charge changed the filter")
				}
			}
			if fits != (err == nil) || uint64(f.Spent()) != sum.Uint64() || f.Spent()+f.Remaining() != f.Budget {
				t.Fatalf("charge %d: %v; spent %v, remaining %v of %v", charge, err, f.Spent(), f.Remaining(), f.Budget)
			}
		}
	})
}
